"""From a folder of videos and transcripts to a dataset; run as `python -m training.data_building.…`."""
