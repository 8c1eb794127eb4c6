"""Errors of the command line: what they look like, and which exit code they end with."""

import argparse
import errno
import os
import re
from typing import NoReturn

ADVICE = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "check the permissions, or choose another place",
    errno.ENOENT: "check the path",
}


class ArgumentError(ValueError):
    """Wrong arguments, found before any work: the command ends with exit code 2."""


def check_revision(model: str, revision: str | None) -> None:
    """Raise an `ArgumentError` for a revision of a folder, which has none."""
    if revision is not None and os.path.exists(model):
        raise ArgumentError(f"--revision belongs to a model on the hub, but {model} is a folder.")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def in_one_sentence(error: Exception) -> str:
    """Return what an error says; for one of the operating system, with the file and what to do."""
    if not isinstance(error, OSError) or error.errno is None:
        # Lines of libraries are joined, up to a traceback, but for those of a list ("\n  ").
        return re.sub(r"\s*\n(?!  \S)\s*", " ", str(error).partition("\nTraceback")[0].strip())
    place = f"{error.filename}: " if error.filename else ""
    advice = ADVICE.get(error.errno)
    return f"{place}{error.strerror}" + (f"; {advice}." if advice else ".")
