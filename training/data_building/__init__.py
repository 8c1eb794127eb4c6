"""From a folder of videos and transcripts to a data set; run as `python -m training.data_building.…`."""
