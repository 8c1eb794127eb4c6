"""Training steps: speed and memory."""
