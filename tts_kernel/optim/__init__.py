"""Optimisers and the schedules that drive them."""
