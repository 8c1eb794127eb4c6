"""The harness behind run.py: annotations, embeddings, protocols, report."""
