"""Types of argparse for numbers with a least value: a smaller one ends the process with exit code 2."""

import argparse
from collections.abc import Callable


def at_least(least: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """Return the type of a finite number of at least `least`."""

    def parse(text: str) -> float:
        number = kind(text)
        if not least <= number < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least} and finite, got {text}")
        return number

    parse.__name__ = kind.__name__  # argparse names it where the text is no number
    return parse
