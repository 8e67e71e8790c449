"""Figures and panels, drawn from run folders alone: they work on a crashed run, and without a browser."""
