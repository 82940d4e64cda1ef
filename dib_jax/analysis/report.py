"""The report of a finished run: one HTML page that shows what was measured.

`write_report` reads config.json, results.json and metrics.jsonl of a workdir and writes
figures/*.png and report.html. The page is a list of sections, each made by a function
of what is known of the run that returns None where it has nothing to show; `_SECTIONS`
holds them in order.
"""

import functools
import io
import json
import math
import os
import pathlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dib_jax.analysis import figures, page
from dib_jax.analysis.drawing import outlined
from dib_jax.analysis.findings import Table, read_findings
from dib_jax.analysis.information_figures import Rendered
from dib_jax.analysis.page import Section, escape
from dib_jax.tasks.worth import Boxes, Worth, measure
from dib_jax.training.config import differences, flatten
from dib_jax.training.workdir import write_atomically

END_TO_END = "end_to_end"

# In what a run and its baseline may differ: end to end there is no local loss, and
# how a run is probed does not change it.
_BASELINE_MAY_DIFFER = frozenset({"objective", "schedule", "epochs", "analysis"})
_MANY = 20  # stages or classes, beyond which a figure is drawn in pixels
_EXAMPLES, _PAIRS = 12, 10
_NOTHING = "nothing found"
_TRUE, _FOUND = figures.GREEN, figures.VERMILION
_BOX_KEY = (
    f'<p class="note"><b style="color: {_TRUE}">Green</b> is a true box, '
    f'<b style="color: {_FOUND}">red</b> a found one.</p>'
)
_ARXIV = "https://arxiv.org/abs/2510.27651"


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


class _Material(NamedTuple):
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
        return self.run.results["metric"]

    @property
    def loss_unit(self) -> str:
        return self.run.results.get("loss_unit") or ""

    @property
    def overlapping(self) -> bool:
        return self.run.at_once


def write_report(
    workdir: pathlib.Path,
    predictions: Predictions,
    *,
    command: str = "",
    information: Sequence[Rendered] = (),
) -> pathlib.Path:
    """Write figures/*.png and report.html of a finished run.

    Args:
        workdir: the run's folder.
        predictions: of the test split by the last stage.
        command: the one that made the run, to be shown; where empty, one that sets
            every field of the config is.
        information: figures of the probes, to be shown; they are saved by whoever
            draws them.

    Returns:
        The path of report.html.

    Raises:
        ValueError: the run is not finished, a file of it is damaged, or the shapes of
            `predictions` do not fit together.
        OSError: the workdir cannot be written.
    """
    _check(predictions)
    run = _read_run(workdir)
    material = _Material(
        run,
        _read_metrics(workdir / "metrics.jsonl"),
        predictions,
        find_baseline(workdir),
        command or _full_command(run),
        predictions.boxes
        and measure(predictions.boxes, num_classes=len(predictions.class_names)),
        information,
    )
    (workdir / "figures").mkdir(exist_ok=True)
    sections = [made for section in _SECTIONS if (made := section(material))]
    text = page.page(
        _title(run),
        subtitle=_subtitle(run),
        lead=_headline(material) + _what_was_run(material),
        sections=sections,
        footer=_FOOTER,
    )
    path = workdir / "report.html"
    write_atomically(path, text.encode())
    return path


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
    run = _read_run(workdir)
    found = []
    for path in sorted(workdir.absolute().parent.glob("*/results.json")):
        if path.parent == workdir.absolute():
            continue
        try:
            other = _read_run(path.parent)
        except ValueError:
            continue  # an unfinished, foreign or damaged neighbour is not our business
        if run.end_to_end == other.end_to_end:
            continue
        changed = set(differences(run.config, other.config))
        sections = {dotted.partition(".")[0] for dotted in changed}
        same_budget = "epochs" not in changed or _passes(run) == _passes(other)
        if sections <= _BASELINE_MAY_DIFFER and same_budget:
            found.append((len(sections - {"schedule"}), str(path), other))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _read_run(workdir: pathlib.Path) -> Run:
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


def _read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
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


def _check(predictions: Predictions) -> None:
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


# What is said in words


def _title(run: Run) -> str:
    dataset = run.results["dataset"]
    if run.end_to_end:
        return f"End-to-end training on {dataset}"
    objective = _section(run, "objective").get("name", run.results.get("objective"))
    return f"{'GreedyDIB' if objective == 'dib' else objective} on {dataset}"


def _subtitle(run: Run) -> str:
    name = _section(run, "model").get("name", "network")
    stages = f"{_stage_count(run)} stage{'s' * (_stage_count(run) > 1)}"
    how = "stage by stage, without end-to-end back-propagation"
    if run.end_to_end:
        how = "end to end by back-propagation"
    elif run.penalized:
        how = "end to end by back-propagation, with a penalty at every stage"
    return f"{name}, {stages}, trained {how}"


def _headline(material: _Material) -> str:
    run, other = material.run, material.baseline
    name = _within(figures.metric_label(material.metric))
    value = run.results["test"][material.metric]
    detail = "the whole network" if run.end_to_end else "last stage"
    if material.metric == "accuracy":
        low, high = _wilson(value, len(material.predictions.labels))
        detail += f"; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    cards = [_result(value, f"Test {name}", detail)]
    if other is None:
        return f'<div class="results">{"".join(cards)}</div>'
    compared = other.results["test"][material.metric]
    label = "End-to-end baseline" if other.end_to_end else "Stage by stage"
    epochs = f"{_passes(other)} epochs" if _passes(other) else ""
    same = "same network, data and seed" + (f", {epochs}" if epochs else "")
    cards.append(_result(compared, label, same, other=True))
    points = 100 * (value - compared)
    difference = f"{points:+.2f}".replace("-", "−")
    cards.append(
        '<div class="result other"><span class="value">'
        f'{difference}<span class="unit">points</span></span>'
        '<span class="label">Difference</span><span class="detail">'
        f"{'this run minus the baseline' if other.end_to_end else 'this run minus it'}"
        "</span></div>"
    )
    return f'<div class="results">{"".join(cards)}</div>'


def _result(value: float, label: str, detail: str, *, other: bool = False) -> str:
    return (
        f'<div class="result{" other" * other}">'
        f'<span class="value">{100 * value:.2f}<span class="unit">%</span></span>'
        f'<span class="label">{escape(label)}</span>'
        f'<span class="detail">{escape(detail)}</span></div>'
    )


def _duplicates(results: dict[str, Any], pictures: int) -> str:
    """How many test pictures the network has seen in training; "" where unknown."""
    count = (results.get("duplicates") or {}).get("test")
    if count is None:
        return ""
    verb = "is" if count == 1 else "are"
    return (
        f"{count or 'none'} of the {pictures:,} test pictures {verb} identical to a "
        "training picture"
    )


def _what_was_run(material: _Material) -> str:
    run, results = material.run, material.run.results
    description = str(results.get("dataset_description") or "").strip().rstrip(".")
    facts = {
        "Data": f"{results['dataset']}: {description + '; ' if description else ''}"
        f"{len(material.predictions.labels):,} test pictures, "
        f"{len(material.predictions.class_names)} classes",
        "Duplicates": _duplicates(results, len(material.predictions.labels)),
        "Network": _described(_section(run, "model")),
        "Head": _described(_section(run, "head")),
        "Objective": "the task’s own loss" if run.end_to_end else _objective(run),
        "Training": _training(run),
        "Seed": f"{results.get('seed')}, one run",
    }
    html = page.facts({name: value for name, value in facts.items() if value})
    collapsed = [str(e["stage"]) for e in results["stages"] if e.get("collapsed")]
    if collapsed:
        html += (
            '<p class="note">Collapsed at the end of their training, with the same '
            f"features for all samples: stage {escape(', '.join(collapsed))}.</p>"
        )
    other = material.baseline
    if other is None and not run.end_to_end:
        html += (
            '<p class="note">There is no end-to-end baseline beside this run yet; the '
            f"same command with <code>--config.schedule.name={END_TO_END}</code> makes "
            'one: see <a href="#reproduce">To reproduce</a>.</p>'
        )
    elif other is not None:
        name = "end-to-end baseline" if other.end_to_end else "stage-by-stage run"
        how = "" if other.end_to_end else f", objective {_objective(other)}"
        html += (
            f'<p class="note">The {name} is {escape(other.workdir.name)} in the folder '
            "beside this one, with the same settings but for the schedule: "
            f"{escape(_training(other) + how)}.</p>"
        )
    return html


def _objective(run: Run) -> str:
    return _described(_section(run, "objective"))


def _training(run: Run) -> str:
    """Schedule and epochs in words."""
    schedule = _section(run, "schedule")
    name = schedule.get("name", run.results.get("schedule"))
    blocks = schedule.get("blocks", 1)
    epochs = [entry.get("epochs") for entry in run.results["stages"]]
    if run.end_to_end:
        many = f", {epochs[-1]} epochs" if epochs[-1] is not None else ""
        how = ", activations recomputed" if schedule.get("remat") else ""
        return f"all stages together by back-propagation{how}{many}"
    unit = "block" if isinstance(blocks, int) and blocks > 1 else "stage"
    words = {
        "sequential": f"one {unit} after the other, each frozen before the next",
        "parallel": f"all {unit}s at once, with no gradient between them",
        "parallel_readout": f"all {unit}s at once, with no gradient between them, then "
        "an output layer alone on the last one’s features",
        f"{END_TO_END}_penalized": "all stages together by back-propagation, with the "
        "objective’s terms at every stage",
    }.get(str(name), f"schedule {name}")
    if unit == "block":
        words += f", in blocks of {blocks} stages"
    if None in epochs:
        return words
    if len(set(epochs)) > 1:
        return f"{words}, {', '.join(map(str, epochs))} epochs"
    return f"{words}, {epochs[0]} epoch{'s' * (epochs[0] != 1)} per {unit}"


def _described(section: Mapping[str, Any]) -> str:
    """A section of the config as `name (option value, …)`."""
    options = [
        f"{name} {_shown(value)}" for name, value in section.items() if name != "name"
    ]
    name = str(section.get("name", ""))
    return name + (f" ({', '.join(options)})" if name and options else "")


_FOOTER = (
    "<p>GreedyDIB here is a reconstruction from the abstract of Lyu, Wu and Du, "
    f'<a href="{_ARXIV}">arXiv 2510.27651</a>, and from the papers it builds on. It is '
    "not the authors’ code, and no number on this page is theirs.</p>"
)


# The sections


def _stages(material: _Material) -> Section | None:
    """Accuracy after each stage; of the counterpart, for a run end to end."""
    run, other = material.run, material.baseline
    layered = other if run.end_to_end else run
    if layered is None or len(layered.results["stages"]) < 2:
        return None
    reference = run if run.end_to_end else other
    entries = layered.results["stages"]
    baseline = reference.results["test"][material.metric] if reference else None
    label = figures.metric_label(material.metric)
    validated = any(entry.get("validation") for entry in entries)
    others = (
        "all stages trained at once" if layered.at_once else "all earlier stages frozen"
    )
    caption = (
        f"{label} of the head on each stage, {others}"
        f"{'; validation and test split' if validated else '; test split'}"
        f"{', and the same network end to end' if reference else ''}. One seed."
    )
    if run.end_to_end:
        caption = "The stage-by-stage run of the same network. " + caption
    drawn = _figure(
        material,
        "stages",
        functools.partial(
            figures.stage_metric, entries, metric=material.metric, baseline=baseline
        ),
        alt=f"{label} after each of {len(entries)} stages.",
        caption=caption,
    )
    return Section("stages", f"{label} after each stage", drawn)


def _information(material: _Material) -> Section | None:
    """What the probes show, in the words of findings.json, and its tables."""
    found = read_findings(material.run.workdir)
    if found is None:
        return None
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.sentences)
    drawn = "".join(_with_numbers(made) for made in material.information)
    tables = "".join(_table(table) for table in found.tables)
    return Section(
        "information", "Information in the network", f"<ul>{said}</ul>{drawn}{tables}"
    )


def _with_numbers(made: Rendered) -> str:
    """A figure of the probes; its animation and its numbers unfold below it."""
    drawing, (kind, wide, narrow) = made.drawing, made.page
    html = f"<h3>{escape(drawing.title)}</h3>" + page.figure(
        (kind, wide),
        (kind, narrow),
        width=round(96 * made.width),
        alt=drawing.alt,
        caption=drawing.caption,
    )
    if made.gif is not None:
        film = page.data_uri("image/gif", made.gif)
        shown = f'<figure><img src="{film}" alt="{escape(drawing.alt)}"></figure>'
        html += page.folded("As a film, probe by probe", shown)
    if drawing.table is not None:
        html += page.folded("The numbers", _table(drawing.table))
    return html


def _table(table: Table) -> str:
    return page.table(
        table.header,
        [[_number(value) for value in row] for row in table.rows],
        text=[
            column
            for column in range(len(table.header))
            if any(isinstance(row[column], str) for row in table.rows)
        ],
        caption=table.title,
    )


def _number(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else value


def _costs(material: _Material) -> Section | None:
    """The table of stages."""
    label = _within(figures.metric_label(material.metric))
    run, other = material.run, material.baseline
    lines = [(f"{entry['stage']}", entry) for entry in run.results["stages"]]
    if run.end_to_end and len(lines) == 1:
        lines = [("all, end to end", lines[0][1])]
    if run.results.get("ensemble"):
        lines.append(("ensemble", {"test": run.results["ensemble"]}))
    if other is not None and other.end_to_end:
        lines.append(("end to end", other.results["stages"][-1]))
    columns: list[tuple[str, Callable[[dict[str, Any]], str | None]]] = [
        (
            f"Validation {label}",
            lambda entry: _percent(
                (entry.get("validation") or {}).get(material.metric)
            ),
        ),
        (
            f"Test {label}",
            lambda entry: _percent((entry.get("test") or {}).get(material.metric)),
        ),
        (
            "Test loss",
            lambda entry: _decimal((entry.get("test") or {}).get("loss")),
        ),
        *(
            (
                f"Test {_within(figures.metric_label(name))}",
                lambda entry, name=name: _percent(entry.get("test", {}).get(name)),
            )
            for name in run.results["test"]
            if name not in (material.metric, "loss")
        ),
        ("Epochs", lambda entry: _count(entry.get("epochs"))),
        ("Time", lambda entry: _duration(entry.get("seconds"))),
        ("Temporaries", lambda entry: _bytes(entry.get("temp_bytes"))),
        ("Peak memory", lambda entry: _bytes(entry.get("peak_bytes"))),
        ("Work per step", lambda entry: _flops(entry.get("flops"))),
    ]
    measured = [(name, [show(entry) for _, entry in lines]) for name, show in columns]
    # A column that nothing was measured for says nothing.
    measured = [column for column in measured if any(column[1])]
    rows = [
        [lines[row][0], *(cells[row] for _, cells in measured)]
        for row in range(len(lines))
    ]
    table = page.table(["Stage", *(name for name, _ in measured)], rows, text={0})
    results = run.results
    said = []
    if _is_number(results.get("seconds")):
        compiled = results.get("compile_seconds")
        more = f", of which {_duration(compiled)} compiling" * _is_number(compiled)
        said.append(f"The run took {_duration(results['seconds'])}{more}.")
    if any(
        name in ("Temporaries", "Peak memory", "Work per step") for name, _ in measured
    ):
        said.append(
            "Memory and work are the compiler’s own figures for one training step."
        )
    if any(name.startswith("Validation") for name, _ in measured):
        said.append("The epoch that is best on the validation split is kept.")
    if run.at_once and len(run.results["stages"]) > 1:
        said.append("Stages train in one step: its figures stand beside each of them.")
    if len(lines) > 1:
        said.append("Stages are numbered from 0.")
    if run.results.get("ensemble"):
        said.append("The ensemble averages what all heads say, later ones count more.")
    return Section(
        "table",
        "Stages in numbers",
        f'{table}<p class="note">{escape(" ".join(said))}</p>',
    )


def _curves(material: _Material) -> Section | None:
    if not material.rows:
        return None
    splits = {row["split"] for row in material.rows}
    label = figures.metric_label(material.metric)
    where = (
        ""
        if material.overlapping or len(_trained(material)) == 1
        else (" Vertical rules separate the stages.")
    )
    validated = " and validation" if "validation" in splits else ""
    drawn = _figure(
        material,
        "training",
        functools.partial(
            figures.training_curves,
            material.rows,
            metric=material.metric,
            overlapping=material.overlapping,
            loss_unit=material.loss_unit,
        ),
        alt=f"{label} and task loss over the epochs.",
        vector=len(_trained(material)) <= _MANY,
        caption=(
            f"{label} and task loss on the training{validated} split. Training values "
            "are averages over the epoch while the weights change, with augmentation "
            f"where there is any.{where}"
        ),
    )
    return Section("training", "Training", drawn)


def _terms(material: _Material) -> Section | None:
    names = figures.terms(material.rows)
    if len(names) < 2:
        return None  # the task's loss alone is among the training curves
    drawn = _figure(
        material,
        "terms",
        functools.partial(
            figures.loss_terms,
            material.rows,
            overlapping=material.overlapping,
            loss_unit=material.loss_unit,
        ),
        alt="Terms of the loss over the epochs: "
        + ", ".join(
            figures.term_label(name, loss_unit=material.loss_unit) for name in names
        )
        + ".",
        vector=len(_trained(material)) <= _MANY,
        caption="Terms of the local loss, averages over each epoch’s training batches. "
        "Information is that of a batch, in bits.",
    )
    last = {
        row["stage"]: row
        for row in sorted(
            (row for row in material.rows if row["split"] == "train"),
            key=lambda row: row["epoch"],
        )
    }
    table = page.table(
        [
            "Stage",
            *(figures.term_label(name, loss_unit=material.loss_unit) for name in names),
        ],
        [
            [stage, *(_decimal(last[stage].get(name)) for name in names)]
            for stage in sorted(last)
        ],
        text={0},
        caption="In the last epoch of each stage",
    )
    return Section("terms", "Terms of the loss", drawn + table)


def _confusion(material: _Material) -> Section | None:
    names, labels = material.predictions.class_names, material.predictions.labels
    predicted = material.predictions.predicted
    if predicted.min() < 0:  # a column of its own; no picture is truly of that class
        names = (*names, _NOTHING)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, predicted), 1)
    drawn = _figure(
        material,
        "confusion",
        functools.partial(figures.confusion_matrix, counts, names),
        alt=f"Confusion matrix of {len(names)} classes on the test split.",
        caption=(
            f"Test split: {np.trace(counts):,} of {len(labels):,} pictures are on the "
            "diagonal."
        ),
        vector=len(names) <= _MANY,
    )
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat] > 0]
    if not pairs:
        return Section("confusion", "Confusions", drawn)
    totals = counts.sum(axis=1)
    table = page.table(
        ["True class", "Predicted as", "Pictures", "Of the class"],
        [
            [
                names[true],
                names[other],
                f"{wrong[true, other]:,}",
                _percent(wrong[true, other] / totals[true], digits=1),
            ]
            for true, other in pairs
        ],
        text={0, 1},
        caption="Most frequent confusions",
    )
    html = f'<div class="beside">{drawn}<div>{table}</div></div>'
    return Section("confusion", "Confusions", html)


def _overlaps(material: _Material) -> Section | None:
    """Boxes against the mean training box: overlaps and average precisions."""
    if material.worth is None:
        return None
    run, mean = material.worth
    there = ~np.isnan(run.iou)
    lines = [("this run", run), ("the mean training box", mean)]
    recorded = [{}, material.run.results.get("mean_box") or {}]
    table = page.table(
        ["Boxes of", "Mean IoU", "IoU ≥ 0.5", "AP50", "Mean AP"],
        [
            [
                name,
                _decimal(known.get("mean_iou", worth.mean_iou)),
                _percent(float(np.mean(worth.iou[there] >= 0.5))),
                _percent(known.get("ap50", worth.ap50)),
                _percent(known.get("map", worth.mean_ap)),
            ]
            for (name, worth), known in zip(lines, recorded, strict=True)
            if there.any()
        ],
        text={0},
    )
    drawn = _figure(
        material,
        "overlaps",
        functools.partial(
            figures.overlap_histogram,
            {name: worth.iou[there] for name, worth in lines},
        ),
        alt="Histogram of the overlap of the found and the true box.",
        caption="Of the largest object of each test picture; 0 where nothing was "
        "found. The mean training box is where the training pictures have their "
        "largest object on average; it has the run’s own classes and scores.",
    )
    return Section("boxes", "Boxes", table + drawn)


def _precisions(material: _Material) -> Section | None:
    """Average precision of each class."""
    boxes = material.predictions.boxes
    if material.worth is None or boxes is None:
        return None
    precisions = material.worth[0].precisions
    rows = [
        [
            name,
            f"{int((boxes.true_labels == label).sum()):,}",
            *(
                None if np.isnan(value) else _percent(float(value))
                for value in (precisions[0, label], precisions[:, label].mean())
            ),
        ]
        for label, name in enumerate(material.predictions.class_names)
    ]
    table = page.table(["Class", "Test objects", "AP50", "Mean AP"], rows, text={0})
    note = (
        '<p class="note">COCO’s average precision of each class; the mean is over IoU '
        "thresholds 0.5, 0.55, …, 0.95.</p>"
    )
    return Section("precisions", "Average precision by class", table + note)


def _pictures(material: _Material) -> Section | None:
    predictions, seed = material.predictions, material.run.results.get("seed") or 0
    count = len(predictions.labels)
    predicted, confidence = predictions.predicted, predictions.confidence
    chosen = np.sort(
        np.random.default_rng(seed).choice(count, min(_EXAMPLES, count), replace=False)
    )
    html = (
        f'<p class="note">{len(chosen)} pictures, drawn at random with seed '
        f"{escape(seed)}: the true class, the predicted one and its probability.</p>"
        + _cards(predictions, chosen)
    )
    _save_pictures(material, "examples", chosen)
    if material.worth is not None:
        html = _BOX_KEY + html + _extremes(material)
    mistakes = np.flatnonzero(predicted != predictions.labels)
    if len(mistakes):
        order = np.argsort(-confidence[mistakes], kind="stable")[:_EXAMPLES]
        worst = mistakes[order]
        html += (
            "<h3>The most confident mistakes</h3>"
            f'<p class="note">{len(worst)} of {len(mistakes):,} mistakes among '
            f"{count:,} test pictures.</p>" + _cards(predictions, worst)
        )
        _save_pictures(material, "mistakes", worst)
    return Section("pictures", "Test pictures", html)


def _extremes(material: _Material) -> str:
    """The pictures with the best and the worst boxes."""
    iou = material.worth[0].iou if material.worth else np.zeros(0)
    there = np.flatnonzero(~np.isnan(iou))
    order = there[np.argsort(iou[there], kind="stable")]
    html = ""
    for name, title, chosen in (
        ("best", "The best boxes", order[::-1][:_EXAMPLES]),
        ("worst", "The worst boxes", order[:_EXAMPLES]),
    ):
        html += f"<h3>{title}</h3>" + _cards(material.predictions, chosen, iou)
        _save_pictures(material, name, chosen)
    return html


def _settings(material: _Material) -> Section | None:
    groups: dict[str, dict[str, str]] = {"run": {}}
    for name, value in material.run.config.items():
        if isinstance(value, Mapping):
            # The name says what the other options belong to.
            items = sorted(flatten(value).items(), key=lambda item: item[0] != "name")
            groups[name] = {key: _shown(item) for key, item in items}
        else:
            groups["run"][name] = _shown(value)
    html = "".join(
        page.pairs(name, values) for name, values in groups.items() if values
    )
    return Section("settings", "Settings", f'<div class="columns">{html}</div>')


def _reproduce(material: _Material) -> Section | None:
    results = material.run.results
    html = page.command(_lines(_words(material.command)))
    if material.baseline is None and not material.run.end_to_end:
        html += "<p>The end-to-end baseline, in a folder beside this run:</p>"
        html += page.command(_lines(_baseline_words(material)))
    hardware = results.get("hardware")
    if isinstance(hardware, Mapping):
        hardware = ", ".join(f"{name} {value}" for name, value in hardware.items())
    if hardware:
        html += f"<p>Hardware: {escape(hardware)}.</p>"
    versions = results.get("versions")
    if isinstance(versions, Mapping) and versions:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        html += f"<p>Versions: {escape(listed)}.</p>"
    html += (
        '<p class="note">The same config, seed and machine give the same bits. The '
        "training curves are in metrics.jsonl, all numbers in results.json, the full "
        "config in config.json, the figures as PNG in figures/, beside this page.</p>"
    )
    return Section("reproduce", "To reproduce", html)


_SECTIONS: tuple[Callable[[_Material], Section | None], ...] = (
    _stages,
    _costs,
    _curves,
    _terms,
    _information,
    _overlaps,
    _precisions,
    _confusion,
    _pictures,
    _settings,
    _reproduce,
)


# Figures and pictures


def _figure(
    material: _Material,
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


def _save_pictures(material: _Material, name: str, chosen: np.ndarray) -> None:
    predictions = material.predictions
    captions = [
        f"true {true}\npredicted {predicted}\n{confidence}"
        for true, predicted, confidence, _ in _said_of(predictions, chosen)
    ]
    images = predictions.images[chosen]
    if predictions.boxes is not None:
        images = np.stack([_with_boxes(predictions, index) for index in chosen])
    drawn = figures.picture_grid(images, captions, width=figures.WIDE)
    path = material.run.workdir / "figures" / f"{name}.png"
    write_atomically(path, figures.png(drawn))


def _cards(
    predictions: Predictions, chosen: np.ndarray, iou: np.ndarray | None = None
) -> str:
    boxed = predictions.boxes is not None
    small = max(predictions.images.shape[1:3]) < 96 and not boxed
    cards = []
    for index, said in zip(chosen, _said_of(predictions, chosen), strict=True):
        true, predicted, confidence, right = said
        image = _with_boxes(predictions, index) if boxed else predictions.images[index]
        picture = page.data_uri("image/png", _thumbnail(image))
        overlap = "" if iou is None else f"<span>IoU {iou[index]:.3f}</span>"
        cards.append(
            f'<div class="card"><img{" class=small" * small} src="{picture}" '
            f'alt="Test picture {index}"><span>true <b>{escape(true)}</b></span>'
            f"<span{'' if right else ' class=wrong'}>{'' if right else '✗ '}"
            f"predicted <b>{escape(predicted)}</b></span>"
            f"<span>{escape(confidence)}</span>{overlap}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _said_of(
    predictions: Predictions, chosen: Iterable[int]
) -> list[tuple[str, str, str, bool]]:
    """True class, predicted class, confidence, whether right, of each sample."""
    said = []
    for index in chosen:
        true = int(predictions.labels[index])
        predicted = int(predictions.predicted[index])
        confidence = float(predictions.confidence[index])
        names = (*predictions.class_names, _NOTHING)  # for −1, too
        # 99.97 % is not certainty, and rounds to 100 %.
        shown = "> 99.9 %" if 0.999 < confidence < 1 else f"{100 * confidence:.1f} %"
        said.append((names[true], names[predicted], shown, true == predicted))
    return said


def _with_boxes(predictions: Predictions, index: int) -> np.ndarray:
    """A test picture with its true and its found boxes, uint8 (h, w, 3)."""
    boxes = predictions.boxes
    marks: list[tuple[Sequence[float], str]] = []
    if boxes is not None and boxes.objects.boxes is not None:
        true = boxes.true_boxes[index][boxes.true_labels[index] >= 0]
        found = np.asarray(boxes.objects.boxes[index])[boxes.objects.found[index]]
        marks = [(box, _TRUE) for box in true] + [(box, _FOUND) for box in found]
    picture = Image.fromarray(figures.viewable(predictions.images[index]))
    return np.asarray(outlined(picture, marks, side=192))


def _thumbnail(image: np.ndarray) -> bytes:
    """A PNG of the picture, at most 192 pixels a side."""
    picture = Image.fromarray(figures.viewable(image))
    picture.thumbnail((192, 192))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# Commands


def _full_command(run: Run) -> str:
    """A command that sets every field, since a config file may have changed since."""
    flags = [
        f"--config.{name}={_flag(value)}"
        for name, value in flatten(run.config).items()
        if name != "workdir" and value != {}
    ]
    file = f"configs/{run.results.get('config_name')}.py"
    return " ".join(["python -m experiments.run", f"--config={_quoted(file)}", *flags])


def _flag(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return _quoted(str(value))


def _quoted(word: str) -> str:
    return shlex.quote(word) if word else ""


def _words(command: str) -> list[str]:
    """The words of a command; the program with its module is one of them."""
    try:
        split = shlex.split(command.replace("\\\n", " "))
    except ValueError:
        return [command]  # a quote is left open: shown as it was given
    words = []
    for word in split:
        name, has_value, value = word.partition("=")
        words.append(f"{name}={_quoted(value)}" if has_value else _quoted(word))
    first = next((i for i, word in enumerate(words) if word.startswith("--")), None)
    return [" ".join(words[:first]), *words[first:]] if first else words


def _lines(words: Sequence[str]) -> str:
    """A command on one line, or on one line for each word where that is too long."""
    line = " ".join(words)
    return line if len(line) <= 76 else " \\\n    ".join(words)


def _baseline_words(material: _Material) -> list[str]:
    """The words of the run's command, with another schedule and folder."""
    run = material.run
    dropped = ["--workdir", "--config.workdir", "--config.schedule.name"]
    folder = _shown_path(run.workdir.with_name(f"{run.workdir.name}-{END_TO_END}"))
    added = [f"--config.schedule.name={END_TO_END}", f"--workdir={_quoted(folder)}"]
    epochs = run.config.get("epochs")
    if isinstance(epochs, list):
        # One number per stage means nothing to a network that trains as a whole.
        dropped.append("--config.epochs")
        added.insert(0, f"--config.epochs={sum(epochs)}")
    kept = []
    words = iter(_words(material.command))
    for word in words:
        name, has_value, _ = word.partition("=")
        if name not in dropped:
            kept.append(word)
        elif not has_value:
            next(words, None)  # its value is the next word
    return [*kept, *added]


def _shown_path(path: pathlib.Path) -> str:
    """The path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


# Numbers


def _section(run: Run, name: str) -> Mapping[str, Any]:
    value = run.config.get(name, {})
    return value if isinstance(value, Mapping) else {}


def _stage_count(run: Run) -> int:
    """Stages of the network, whose last one every schedule evaluates."""
    return run.results["stages"][-1]["stage"] + 1


def _trained(material: _Material) -> set[int]:
    return {row["stage"] for row in material.rows}


def _passes(run: Run) -> int | None:
    """Passes over the training split by all stages together."""
    epochs = [entry.get("epochs") for entry in run.results["stages"]]
    if None in epochs:
        return None
    return epochs[-1] if run.at_once else sum(epochs)


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent samples."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def _within(label: str) -> str:
    """A label within a sentence: `Accuracy` → accuracy, AP50 as it is."""
    return label if label.isupper() else label.lower()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> str | None:
    return f"{value:,}" if _is_number(value) else None


def _decimal(value: Any) -> str | None:
    """Four significant digits, none of them lost to a fixed number of places."""
    if not _is_number(value):
        return None
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3e}".replace("-", "−")
    places = 4 if abs(value) < 10 else 3 if abs(value) < 100 else 2
    return f"{value:.{places}f}".replace("-", "−")


def _percent(value: Any, *, digits: int = 2) -> str | None:
    return f"{100 * value:.{digits}f} %" if _is_number(value) else None


def _duration(seconds: Any) -> str | None:
    if not _is_number(seconds):
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _bytes(value: Any) -> str | None:
    if not _is_number(value):
        return None
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return None


def _flops(value: Any) -> str | None:
    if not _is_number(value):
        return None
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {unit}FLOP"
    return f"{value:.0f} FLOP"


def _shown(value: Any) -> str:
    """A value of the config as one would write it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_shown(item) for item in value) or "none"
    if value == "":
        return "none"
    return str(value)
