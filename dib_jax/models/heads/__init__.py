"""Auxiliary heads: from a stage's features to the task's outputs."""
