"""Sections on the nodes of a graph: where they lie, and how alike layers make them."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dib_jax.analysis.page import Section
from dib_jax.analysis.report import shown
from dib_jax.analysis.report.material import Maker, Material
from dib_jax.tasks import style
from dib_jax.tasks.exhibits import Drawing, Table

if TYPE_CHECKING:
    from dib_jax.training.finished import Trained

_NODES = 2000  # test nodes that are drawn and compared, the first ones


def layer_features(trained: "Trained") -> tuple[np.ndarray, ...]:
    """Features (n, d) of test nodes after each layer; () for samples that are no nodes.

    Args:
        trained: a finished run.
    """
    experiment = trained.experiment
    if experiment.dataset.kind.name != "nodes":
        return ()
    samples = {k: jnp.asarray(x[:_NODES]) for k, x in experiment.dataset.test.items()}
    batch = experiment.prepare_inputs(samples, dict(experiment.common))
    found = jax.jit(experiment.algorithm.features)(trained.network, batch)
    return tuple(map(np.asarray, found))


def mean_cosine(x: np.ndarray) -> float:
    """Mean cosine between two samples, −1 to 1: 1 where all have the same direction.

    Args:
        x: features (n, d), n ≥ 2; samples without length count as 0.
    """
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(length > 0, length, 1)
    count = len(x)
    return float(
        (np.sum(unit.sum(axis=0) ** 2) - np.sum(unit**2)) / count / (count - 1)
    )


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions of most variance.

    Args:
        x: features (n, d).

    Returns:
        Places (n, 2), and the shares (2,) of the variance.
    """
    centred = np.asarray(x, np.float64) - x.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(x), 2))
    places[:, : len(sizes)] = (left * sizes)[:, :2]
    total = np.sum(sizes**2)
    shares = np.zeros(2)
    shares[: len(sizes)] = (sizes**2 / (total if total > 0 else 1))[:2]
    return places, shares


def _places(
    features: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    width: float = 8.3,
) -> Figure:
    places, shares = principal(features)
    figure, (axes,) = style.panels(1, 1, width=width, height=4.2, margin=0)
    handles = []
    for number, color in enumerate(style.stage_colors(len(names))):
        some = places[labels == number]
        if len(some):
            handles.append(
                axes.scatter(some[:, 0], some[:, 1], s=7, lw=0, alpha=0.75, color=color)
            )
            handles[-1].set_label(str(names[number]))
    first, second = (f"{100 * share:.0f} % of the variance" for share in shares)
    style.finish(axes, f"First direction, {first}", f"Second direction, {second}")
    style.legend(figure, handles, columns=7)
    return figure


def _alike(cosines: Sequence[float], *, width: float = 8.3) -> Figure:
    figure, (axes,) = style.panels(1, 1, width=width, height=2.6, margin=0)
    axes.plot(range(len(cosines)), cosines, "o-", color=style.BLUE, clip_on=False)
    style.finish(axes, "Stage", "Mean cosine")
    style.whole_numbers(axes.xaxis, 12)
    axes.set_ylim(min(0, *cosines), 1)
    return figure


def _nodes(material: Material) -> Section | None:
    if not material.features:
        return None
    answers, last = material.answers, material.features[-1]
    labels = np.asarray(answers.test["labels"])[: len(last)]
    cosines = [mean_cosine(x) for x in material.features]
    drawings = (
        Drawing(
            "nodes",
            functools.partial(_places, last, labels, answers.class_names),
            f"{len(last):,} test nodes in two dimensions, coloured by class.",
            f"Principal components of the last layer’s features, {len(last):,} test "
            "nodes, coloured by their true class.",
            vector=False,
        ),
        Drawing(
            "alike",
            functools.partial(_alike, cosines),
            f"Mean cosine between nodes after each of {len(cosines)} layers.",
            "How alike nodes are: the mean cosine between the features of two test "
            "nodes. Near 1 the layers have smoothed away what tells nodes apart.",
            table=Table(
                "",
                ("Stage", "Mean cosine"),
                [(f"{k}", c) for k, c in enumerate(cosines)],
            ),
        ),
    )
    html = "".join(shown.drawing(material.run.workdir, one) for one in drawings)
    return Section("nodes", "Nodes", html)


SECTIONS: tuple[Maker, ...] = (_nodes,)
