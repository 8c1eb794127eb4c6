"""The command line `tvtsv2`: one file a command, each with `add_parser` and `run`; the others are their parts."""
