"""Say what is on pictures, by the network of a finished run.

python -m experiments.predict --workdir=DIR [--out=OUT] IMAGE…

The same as `python -m dib_jax.commands.predict`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("predict")
