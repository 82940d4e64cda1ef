"""Write the network of a finished run for other programs.

python -m experiments.export --workdir=DIR [--out=OUT]

The same as `python -m dib_jax.commands.export`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("export")
