"""Train, evaluate and report one experiment.

python -m experiments.run --config=configs/NAME.py[:quick] [--workdir=DIR]
    [--devices=N | --distributed] [--config.FIELD=VALUE …]

The same as `python -m dib_jax.commands.run`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("run")
