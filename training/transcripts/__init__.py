"""Transcripts: words and their times."""
