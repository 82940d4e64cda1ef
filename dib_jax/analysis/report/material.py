"""What the sections of a report are made from."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dib_jax.analysis.figures import Rendered
from dib_jax.analysis.page import Section
from dib_jax.analysis.runs import Run
from dib_jax.tasks import Measure, measure_of
from dib_jax.tasks.exhibits import Answers


class Material(NamedTuple):
    """What is known of a run.

    Attributes:
        run: it.
        rows: of its metrics.jsonl.
        baseline: the run it is compared with; None where there is none.
        command: that makes the run.
        measures: what its task measures.
        answers: of the network for the test split.
        samples: how many there are in it.
        information: figures of its probes.
        features: of test nodes after each layer, (n, d); empty for other samples.
    """

    run: Run
    rows: list[dict[str, Any]]
    baseline: Run | None
    command: str
    measures: Mapping[str, Measure]
    answers: Answers
    samples: int
    information: Sequence[Rendered]
    features: Sequence[np.ndarray] = ()

    @property
    def metric(self) -> str:
        """Name of the run's main metric."""
        return self.run.results["metric"]

    @property
    def measure(self) -> Measure:
        """What that metric is called."""
        return measure_of(self.measures, self.metric)

    @property
    def overlapping(self) -> bool:
        """Whether the stages have the same epochs, so that their curves overlap."""
        stretches = len(list(itertools.groupby(row["stage"] for row in self.rows)))
        return self.run.at_once or stretches > self.trained

    @property
    def trained(self) -> int:
        """How many stages have lines in metrics.jsonl."""
        return len({row["stage"] for row in self.rows})


# A section of the page, or None where there is nothing to show.
Maker = Callable[[Material], Section | None]
