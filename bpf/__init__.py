"""Kernel programs and their loaders. None is needed by what is built so far; README.md says what will live here."""
