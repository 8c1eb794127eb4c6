"""Raw footage read with suspicion: transcripts of any format, list files, and checks of each video."""
