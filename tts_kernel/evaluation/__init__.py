"""Judging a model by more than its loss."""
