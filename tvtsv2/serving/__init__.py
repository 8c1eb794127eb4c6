"""The HTTP server: requests, batches, limits."""
