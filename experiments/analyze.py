"""Say what the probes of runs show.

python -m experiments.analyze --workdir=DIR [DIR …]

The same as `python -m dib_jax.commands.analyze`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("analyze")
