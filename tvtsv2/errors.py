"""Errors of the command line."""


class ArgumentError(ValueError):
    """Wrong arguments: the command ends with exit code 2, as for those that argparse itself finds."""
