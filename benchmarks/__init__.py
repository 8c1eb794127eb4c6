"""Evaluation protocols, metrics and speed measurements, each with its record."""
