"""Measure what the library computes.

python -m experiments.benchmark NAME [--out=results] [--FLAG=VALUE …]

The same as `python -m dib_jax.commands.benchmark`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("benchmark")
