"""Comparison with recorded outputs of the public reference implementations: `python -m tests.parity FOLDER...`."""
