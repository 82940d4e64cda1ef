"""Evaluate a finished run once more.

python -m experiments.evaluate --workdir=DIR

The same as `python -m dib_jax.commands.evaluate`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("evaluate")
