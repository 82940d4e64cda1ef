"""Evaluate a finished run once more: the metrics of every stage on the test split.

python -m experiments.evaluate --workdir=DIR
"""

import sys

from experiments import command_line

_PURPOSE = (
    "Restores the network of a finished run from its checkpoint and evaluates every "
    "stage's head on the test split."
)


def main(arguments: list[str]) -> None:
    """The command."""
    workdir = command_line.read_workdir(
        arguments, command="experiments.evaluate", purpose=_PURPOSE
    )
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.training.train import load_trained

    trained = load_trained(workdir)
    stages = trained.results["stages"]
    names = list(trained.test[-1])
    print("stage" + "".join(f"{'test ' + name:>16}" for name in names))
    for entry, metrics in zip(stages, trained.test, strict=True):
        row = "".join(f"{metrics[name]:16.4f}" for name in names)
        print(f"{entry['stage']:5d}{row}")
    difference = max(
        abs(metrics[name] - entry["test"][name])
        for entry, metrics in zip(stages, trained.test, strict=True)
        for name in names
    )
    print(f"largest difference from results.json: {difference:.2g}")


if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.evaluate"))
