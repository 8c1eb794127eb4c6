"""How commands end: with one line for an error or an interruption, and an exit code."""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODES = "exit codes: 0 all is well; 1 an error, named on stderr; 2 wrong arguments; 130 interrupted."
GOES_ON, STARTS_ANEW = "the same command goes on", "the same command starts anew"


class OneLineParser(argparse.ArgumentParser):
    """A parser that shows the defaults, and whose errors are one line."""

    def __init__(self, *args, **kwargs):
        settings = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter, "epilog": EXIT_CODES}
        super().__init__(*args, **settings | kwargs)

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"error: {' '.join(message.split())}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an integer of at least `least`: a smaller one ends the process with exit code 2."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return number

    parse.__name__ = "int"  # argparse names it where the text is no number
    return parse


@contextlib.contextmanager
def one_line_errors(*errors: type[Exception], after_interruption: str = GOES_ON) -> Iterator[None]:
    """End the process with one line on some errors, and on Ctrl-C.

    Args:
        errors: what ends the process with exit code 1.
        after_interruption: what the line for Ctrl-C says beside "interrupted".
    """
    try:
        yield
    except errors as error:
        text = str(error).strip() or type(error).__name__
        if text.startswith("Caught "):  # by a loading worker, whose traceback torch puts in front
            text = text.splitlines()[-1].partition(": ")[2]
        # Lines of libraries are joined, up to a traceback, but for those of a list ("\n  ").
        sys.exit("error: " + re.sub(r"\s*\n(?!  \S)\s*", " ", text.partition("\nTraceback")[0].strip()))
    except KeyboardInterrupt:
        print(f"interrupted; {after_interruption}.", file=sys.stderr)
        sys.exit(130)
