"""TVTSv2 models: tensors in, tensors out."""
