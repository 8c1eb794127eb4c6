"""Training samples: one file per data set format, and what they share."""
