"""Measures the emulator beside its peers: ``python -m tests.bench``. It is no test."""
