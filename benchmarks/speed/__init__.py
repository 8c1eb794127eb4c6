"""How fast, beside a named baseline in the same run."""
