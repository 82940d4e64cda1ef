"""The commands: `python -m experiments.NAME`."""
