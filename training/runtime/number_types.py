"""Types of argparse for numbers with a least value: a smaller one ends the process with exit code 2."""

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an integer of at least `least`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return number

    parse.__name__ = "int"  # argparse names it where the text is no number
    return parse
