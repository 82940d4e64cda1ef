"""Compare methods on data sets and seeds.

python -m experiments.compare --config=configs/compare/NAME.py[:quick] [--workdir=DIR]
    [--data_dir=DIR] [--jobs=N]

The same as `python -m dib_jax.commands.compare`.
"""

from dib_jax.commands import command_line

if __name__ == "__main__":
    command_line.start("compare")
