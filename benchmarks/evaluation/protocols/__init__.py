"""What is done with embeddings: retrieval, recognition, multiple choice, the linear probe, and their metrics."""
