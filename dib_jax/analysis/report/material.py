"""What the report of a run is made of: its files, and what it predicted."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dib_jax.analysis import figures, page
from dib_jax.analysis.information_figures import Rendered
from dib_jax.analysis.page import Section
from dib_jax.tasks.worth import Boxes, Worth
from dib_jax.training.config import differences
from dib_jax.training.workdir import write_atomically

END_TO_END = "end_to_end"
MANY = 20  # stages or classes, beyond which a figure is drawn in pixels
# In what a run and its baseline may differ: end to end there is no local loss, and
# how a run is probed does not change it.
_BASELINE_MAY_DIFFER = frozenset({"objective", "schedule", "epochs", "analysis"})


class Predictions(NamedTuple):
    """What the last stage says of the test split.

    Attributes:
        images: uint8 (n, h, w, c), the whole split.
        labels: int (n,), the true classes.
        predicted: int (n,), the predicted classes, −1 where nothing was found.
        confidence: (n,), how sure each of them is, 0..1.
        class_names: of the c classes.
        boxes: true and found objects, for a task with boxes. Then class and confidence
            above are those of the largest object.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    class_names: tuple[str, ...]
    boxes: Boxes | None = None


class Run(NamedTuple):
    """A finished run as its workdir has it.

    Attributes:
        workdir: its folder.
        config: config.json.
        results: results.json.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    results: dict[str, Any]

    @property
    def end_to_end(self) -> bool:
        """Whether it was trained by back-propagation through all stages."""
        return self.config.get("schedule", {}).get("name") == END_TO_END

    @property
    def at_once(self) -> bool:
        """Whether its stages trained at once, with no gradient between them."""
        name = self.config.get("schedule", {}).get("name")
        return name in ("parallel", "parallel_readout")

    @property
    def penalized(self) -> bool:
        """Whether back-propagation went through all stages, with a penalty at each."""
        return self.config.get("schedule", {}).get("name") == f"{END_TO_END}_penalized"

    @property
    def stage_count(self) -> int:
        """Stages of the network, whose last one every schedule evaluates."""
        return self.results["stages"][-1]["stage"] + 1

    @property
    def passes(self) -> int | None:
        """Passes over the training split by all stages together."""
        epochs = [entry.get("epochs") for entry in self.results["stages"]]
        if None in epochs:
            return None
        return epochs[-1] if self.at_once else sum(epochs)

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the config; empty where there is none."""
        value = self.config.get(name, {})
        return value if isinstance(value, Mapping) else {}


class Material(NamedTuple):
    """What the sections of a report are made from; `baseline` as `find_baseline`."""

    run: Run
    rows: list[dict[str, Any]]
    predictions: Predictions
    baseline: Run | None
    command: str
    worth: tuple[Worth, Worth] | None
    information: Sequence[Rendered]

    @property
    def metric(self) -> str:
        """Name of the run's main metric."""
        return self.run.results["metric"]

    @property
    def loss_unit(self) -> str:
        """Unit of the task's loss; "" where unknown."""
        return self.run.results.get("loss_unit") or ""

    @property
    def overlapping(self) -> bool:
        """Whether the stages have the same epochs, so that their curves overlap."""
        return self.run.at_once


def find_baseline(workdir: pathlib.Path) -> Run | None:
    """The run that this one is to be compared with: the same, but for its schedule.

    Looked for among finished runs in folders beside this one whose config is equal
    except for `schedule`, `objective`, `analysis`, `workdir` and `dataset.data_dir`.
    Epochs must be equal too, or make the same number of passes in all. A run that is
    not end to end is compared with one that is; one that is, with one that is not.
    Among several the one with the same objective and epochs is taken, then the first by
    name.

    Args:
        workdir: of a finished run.

    Returns:
        The other run, or None where there is none.

    Raises:
        ValueError: the run in `workdir` is not finished or damaged.
    """
    run = read_run(workdir)
    found = []
    for path in sorted(workdir.absolute().parent.glob("*/results.json")):
        if path.parent == workdir.absolute():
            continue
        try:
            other = read_run(path.parent)
        except ValueError:
            continue  # an unfinished, foreign or damaged neighbour is not our business
        if run.end_to_end == other.end_to_end:
            continue
        changed = set(differences(run.config, other.config))
        sections = {dotted.partition(".")[0] for dotted in changed}
        same_budget = "epochs" not in changed or run.passes == other.passes
        if sections <= _BASELINE_MAY_DIFFER and same_budget:
            found.append((len(sections - {"schedule"}), str(path), other))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def read_run(workdir: pathlib.Path) -> Run:
    """A finished run; ValueError where it is not finished, or a file is damaged."""
    config, results = (
        _read_json(workdir / name) for name in ("config.json", "results.json")
    )
    for key in ("metric", "test", "stages"):
        if not results.get(key):
            raise ValueError(f"{workdir / 'results.json'}: {key!r} is missing or empty")
    return Run(workdir, config, results)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: a report is made of a finished run; finish it with "
            "`python -m experiments.run`"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return value


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; ValueError where one but the last is damaged."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break  # being written, or cut off by a kill
            raise ValueError(f"{path}:{number} is damaged: {error}") from None
    return rows


def check(predictions: Predictions) -> None:
    """Raise ValueError where the shapes or values do not fit together."""
    images, labels, predicted = predictions[:3]
    count, classes = len(labels), len(predictions.class_names)
    if count == 0:
        raise ValueError("predictions: there is no test sample to report on")
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != count:
        raise ValueError(
            f"predictions.images must be uint8 ({count}, h, w, c), got {images.dtype} "
            f"{images.shape}"
        )
    for name in ("predicted", "confidence"):
        shape = getattr(predictions, name).shape
        if shape != (count,):
            raise ValueError(
                f"predictions.{name} must be ({count},), as labels are, got {shape}"
            )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"predictions.labels must lie in 0..{classes - 1}, got {labels.min()} to "
            f"{labels.max()}"
        )
    if predicted.min() < -1 or predicted.max() >= classes:
        raise ValueError(
            f"predictions.predicted must lie in −1..{classes - 1}, got "
            f"{predicted.min()} to {predicted.max()}"
        )


def save_figure(
    material: Material,
    name: str,
    draw: Callable[..., Figure],
    *,
    alt: str,
    caption: str,
    vector: bool = True,
) -> str:
    """Save a figure as figures/<name>.png and return it as HTML."""
    wide, narrow = draw(width=figures.WIDE), draw(width=figures.NARROW)
    saved = figures.png(wide)
    path = material.run.workdir / "figures" / f"{name}.png"
    write_atomically(path, saved)
    kind, large, small = figures.for_page(
        saved, figures.svg(wide) if vector else None, narrow
    )
    return page.figure(
        (kind, large),
        (kind, small),
        width=round(96 * wide.get_figwidth()),
        alt=alt,
        caption=caption,
    )


# A section of the page, or None where there is nothing to show.
Maker = Callable[[Material], Section | None]
