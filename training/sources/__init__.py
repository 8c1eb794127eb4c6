"""Training samples: one file per dataset format, and what they share."""
