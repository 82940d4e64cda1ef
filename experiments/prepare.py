"""Get a data set ready, and show what is in it.

python -m experiments.prepare NAME [--data_dir=DIR] [--FLAG=VALUE …]

The same as `python -m dib_jax.commands.prepare`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("prepare")
