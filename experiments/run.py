"""Train, evaluate and report one experiment.

python -m experiments.run --config=configs/NAME.py[:quick] [--workdir=DIR]
    [--config.FIELD=VALUE …]
"""

import pathlib
import sys

import ml_collections

from experiments import command_line

_PURPOSE = (
    "Trains the network of a config stage by stage, evaluates it on the test split and "
    "writes a report. The same command goes on where it stopped."
)


def run(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, config_name: str
) -> pathlib.Path:
    """Everything that the command does, for a notebook too.

    Args:
        config: a config, as its file's `get_config` returns it.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        config_name: of the experiment, for results.json and the report.

    Returns:
        The path of the report.
    """
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.analysis.report import write_report
    from dib_jax.training.config import complete
    from dib_jax.training.train import load_trained, train
    from dib_jax.training.workdir import finished

    config = complete(config)
    if finished(workdir):
        trained = load_trained(workdir)
    else:
        trained = train(config, workdir, config_name=config_name)
    return write_report(workdir, predictions(trained))


def main(arguments: list[str]) -> None:
    """The command."""
    experiment = command_line.read_experiment(
        arguments, command="experiments.run", purpose=_PURPOSE
    )
    from dib_jax.training.workdir import finished, read_results

    config, config_name, _, workdir = experiment
    report = workdir / "report.html"
    already = finished(workdir) and report.is_file()
    if not already:
        report = run(config, workdir, config_name=config_name)
    results = read_results(workdir)
    metric = results["metric"]
    print(
        f"{'already finished: ' if already else ''}test {metric} "
        f"{results['test'][metric]:.4f}, report {report}"
    )


if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.run", goes_on=True))
