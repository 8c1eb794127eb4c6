"""Which videos, in which windows, read by which process."""
