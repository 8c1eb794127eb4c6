"""A run as a process: its folder, checkpoints, threads, timeouts."""
