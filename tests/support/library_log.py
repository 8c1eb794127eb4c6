"""What transformers logs, for pytest's `caplog`."""

import contextlib
import logging


@contextlib.contextmanager
def propagating_transformers_log():
    """Let pytest see what transformers logs."""
    logger = logging.getLogger("transformers")
    before, logger.propagate = logger.propagate, True
    try:
        yield
    finally:
        logger.propagate = before
