"""The loop that trains, and what it leaves behind: metrics and checkpoints. It knows no family of models."""
