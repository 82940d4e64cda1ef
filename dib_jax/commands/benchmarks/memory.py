"""Temporaries and work of a step by the compiler alone; convolutions are plain ones."""

from collections.abc import Iterator

from dib_jax.commands.benchmarks import table, training

NOTE, plot = table.PLAIN, training.plot


def measure(
    networks: tuple[str, ...] = ("vgg11", "resnet18", "resnet34", "resnet110"),
    batch_sizes: tuple[int, ...] = (128,),
    algorithms: tuple[str, ...] = training.PLAIN,
) -> Iterator[list[table.Row]]:
    """The compiler's figures of the steps of `training`, none of which is run.

    Args:
        networks: as there.
        batch_sizes: as there.
        algorithms: as there.

    Raises:
        ValueError: an unknown network or algorithm.
    """
    return training.measure(networks, batch_sizes, algorithms, timed=False)
