"""Wrappers for libraries that load models through an interface of their own; see docs/hosts."""
