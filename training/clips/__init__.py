"""Clips of videos and what is said in them: where they lie, from each data set's own format, mixed as a run asks."""
