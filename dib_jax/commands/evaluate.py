"""Evaluate a finished run once more: the metrics of every exit on the test split.

python -m experiments.evaluate --workdir=DIR

Restores the network of a finished run from its checkpoint and evaluates every
stage's head on the test split.

  --workdir=DIR  the folder of a run
  --help         this
"""

from dib_jax.commands import command_line


def main(arguments: list[str]) -> None:
    """The command."""
    help = command_line.documented("evaluate", __doc__, summary=False)
    given = command_line.split_arguments(arguments, ("--workdir=DIR",), help=help)
    workdir = command_line.find_workdir(given.flags)
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.commands.run import load_run

    trained = load_run(workdir)
    names = list(trained.test[-1])
    print("stage" + "".join(f"{'test ' + name:>16}" for name in names))
    differences = []
    for entry, metrics in zip(trained.results["stages"], trained.test, strict=True):
        row = "".join(f"{metrics[name]:16.4f}" for name in names)
        print(f"{entry['stage']:5d}{row}")
        differences += [abs(metrics[name] - entry["test"][name]) for name in names]
    print(f"largest difference from results.json: {max(differences):.2g}")


if __name__ == "__main__":
    command_line.start("evaluate")
