"""Exact gradients of the contrastive loss over processes and over chunks of a batch."""
