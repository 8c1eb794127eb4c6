"""Splits of benchmarks, read from the annotation files as published."""
