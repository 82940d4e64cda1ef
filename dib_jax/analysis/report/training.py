"""Sections on the training: stages, costs, curves, terms, information."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dib_jax.analysis import figures, page
from dib_jax.analysis.angles import layers_figure
from dib_jax.analysis.comparison import best_exit
from dib_jax.analysis.findings import read_findings
from dib_jax.analysis.page import Section, escape
from dib_jax.analysis.report import shown, wording
from dib_jax.analysis.report.material import Maker, Material
from dib_jax.tasks import measure_of
from dib_jax.tasks.exhibits import Drawing, Table

_ALL = "all, end to end"  # the one exit of a network that trains as a whole
_MANY = 20  # stages, beyond which a figure is drawn in pixels

Entry = Mapping[str, Any]


def _stages(material: Material) -> Section | None:
    """The metric after each stage; of the counterpart, for a run end to end."""
    run, other = material.run, material.baseline
    layered, reference = (other, run) if run.end_to_end else (run, other)
    if layered is None or len(layered.results["stages"]) < 2:
        return None
    entries, measure = layered.results["stages"], material.measure
    baseline = reference.results["test"][material.metric] if reference else None
    validated = any(entry.get("validation") for entry in entries)
    how = "at once" if layered.at_once or material.overlapping else "in turn"
    splits = "validation and test split" if validated else "test split"
    caption = (
        f"{measure.label} of the head on each stage, stages trained {how}; {splits}"
        f"{', and the same network end to end' * bool(reference)}. One seed."
    )
    if validated and layered.results.get("one_view"):
        caption += (
            " Test outputs are averaged over changed copies of each sample, those for "
            "the validation split are not."
        )
    if run.end_to_end:
        caption = "The stage-by-stage run of the same network. " + caption
    draw = functools.partial(
        figures.stage_metric, entries, material.metric, measure, baseline=baseline
    )
    alt = f"{measure.label} after each of {len(entries)} stages."
    drawn = shown.drawing(run.workdir, Drawing("stages", draw, alt, caption))
    return Section("stages", f"{measure.label} after each stage", drawn)


def _costs(material: Material) -> Section | None:
    """The table of stages."""
    lines = _lines(material)
    measured = {
        name: cells
        for name, cell in _columns(material).items()
        # A column that nothing was measured for says nothing.
        if any(cells := [cell(entry) for _, entry in lines])
    }
    rows = list(zip((name for name, _ in lines), *measured.values(), strict=True))
    table = page.table(["Stage", *measured], rows, text={0})
    results, said = material.run.results, []
    if seconds := wording.duration(results.get("seconds")):
        compiled = wording.duration(results.get("compile_seconds"))
        more = f", of which {compiled} compiling" if compiled else ""
        said.append(f"The run took {seconds}{more}.")
    if measured.keys() & {"Temporaries", "Peak memory", "Work per step"}:
        said.append(
            "Memory and work are the compiler’s own figures for one training step."
        )
    if any(name.startswith("Validation") for name in measured):
        said.append("The epoch that is best on the validation split is kept.")
    if material.overlapping and len(results["stages"]) > 1:
        said.append("Stages train in one step: its figures stand beside each of them.")
    if len(lines) > 1:
        said.append("Stages are numbered from 0.")
    if results.get("ensemble"):
        said.append("The ensemble averages what all heads say, later ones count more.")
    if best := best_exit(results):
        said.append(
            "On the validation split no exit is better than that of stage "
            f"{best['stage']}."
        )
    if results.get("one_view"):
        said.append(
            "Outputs for the test split are averaged over changed copies of each "
            "sample; one view is the last stage without that."
        )
    html = table + page.note(escape(" ".join(said)))
    return Section("table", "Stages in numbers", html)


def _lines(material: Material) -> list[tuple[str, Entry]]:
    """Names and entries of the lines of the table."""
    run, other = material.run, material.baseline
    lines = [(f"{entry['stage']}", entry) for entry in run.results["stages"]]
    if run.end_to_end and len(lines) == 1:
        lines = [(_ALL, lines[0][1])]
    if run.results.get("ensemble"):
        splits = {"validation": "ensemble_validation", "test": "ensemble"}
        found = {split: run.results.get(name) for split, name in splits.items()}
        lines.append(("ensemble", found))
    if run.results.get("one_view"):
        lines.append(("one view", {"test": run.results["one_view"]}))
    if other is not None and other.end_to_end:
        lines.append(("end to end", other.results["stages"][-1]))
    return lines


def _columns(material: Material) -> dict[str, Callable[[Entry], str | None]]:
    """What each column of the table makes of an entry, by its heading."""
    metric, label = material.metric, material.measure.inline

    def of_split(split: str, name: str) -> Callable[[Entry], str | None]:
        measure = measure_of(material.measures, name)
        return lambda entry: wording.measured(
            (entry.get(split) or {}).get(name), measure
        )

    columns = {
        f"Validation {label}": of_split("validation", metric),
        f"Test {label}": of_split("test", metric),
        "Test loss": of_split("test", "loss"),
    }
    for name in material.run.results["test"]:
        if name not in (metric, "loss"):
            heading = f"Test {measure_of(material.measures, name).inline}"
            columns[heading] = of_split("test", name)
    costs = {
        "Epochs": ("epochs", wording.integer),
        "Time": ("seconds", wording.duration),
        "Temporaries": ("temp_bytes", wording.size),
        "Peak memory": ("peak_bytes", wording.size),
        "Work per step": ("flops", wording.work),
    }
    entries = material.run.results["stages"]
    # On a CPU what XLA calls the peak leaves the temporaries out, and misleads.
    if any((e.get("peak_bytes") or 0) < (e.get("temp_bytes") or 0) for e in entries):
        del costs["Peak memory"]
    return columns | {
        name: lambda entry, key=key, words=words: words(entry.get(key))
        for name, (key, words) in costs.items()
    }


def _curves(material: Material) -> Section | None:
    if not material.rows:
        return None
    label, trained = material.measure.label, material.trained
    validated = any(row["split"] == "validation" for row in material.rows)
    rules = not material.overlapping and trained > 1
    task = material.run.config.get("task", {})
    smoothed = validated and bool(task.get("label_smoothing"))
    drawing = Drawing(
        "training",
        functools.partial(
            figures.training_curves,
            material.rows,
            metric=material.metric,
            measures=material.measures,
            overlapping=material.overlapping,
        ),
        f"{label} and task loss over the epochs.",
        f"{label} and task loss on the training{' and validation' * validated} split. "
        "Training values are averages over the epoch while the weights change, with "
        "augmentation where there is any."
        f"{' Only the training loss has smoothed labels.' * smoothed}"
        f"{' Vertical rules separate the stages.' * rules}",
        vector=trained <= _MANY,
    )
    drawn = shown.drawing(material.run.workdir, drawing)
    return Section("training", "Training", drawn)


def _terms(material: Material) -> Section | None:
    rows, measures = material.rows, material.measures
    names = figures.terms(rows, measures)
    if len(names) < 2:
        return None  # the task's loss alone is among the training curves
    caption = (
        f"Terms of the {'' if material.run.end_to_end else 'local '}loss, averages "
        "over each epoch’s training batches."
    )
    if any(figures.term_of(name, measures).unit == "bits" for name in names):
        caption += " Information is that of a batch."
    if "local_gradient" in names:
        caption += " Gradients are with respect to the stage’s features."
    draw = functools.partial(
        figures.loss_terms, rows, measures=measures, overlapping=material.overlapping
    )
    labels = [figures.term_of(name, measures).axis for name in names]
    alt = f"Terms of the loss over the epochs: {', '.join(labels)}."
    vector = material.trained <= _MANY
    drawing = Drawing("terms", draw, alt, caption, vector=vector)
    train = [row for row in rows if row["split"] == "train"]
    last = {row["stage"]: row for row in sorted(train, key=lambda row: row["epoch"])}
    cells = [
        (
            _ALL if material.run.end_to_end and len(last) == 1 else f"{stage}",
            *(wording.decimal(last[stage].get(name)) for name in names),
        )
        for stage in sorted(last)
    ]
    title = "In the last epoch of each stage"
    table = Table(title, ("Stage", *labels), cells, words=(0,))
    html = shown.drawing(material.run.workdir, drawing) + shown.table(table)
    return Section("terms", "Terms of the loss", html)


def _angles(material: Material) -> Section | None:
    """Of a run with feedback weights, their angles and those of the gradients."""
    angles = material.run.results.get("angles")
    if not angles:
        return None
    caption = (
        "Means over each epoch. B is what errors come back through, in place of the "
        "transpose of the layer’s weights W; at 90 degrees the two have nothing in "
        "common. The first layer needs no B, and the output layer’s gradient is the "
        "true one."
    )
    draw = functools.partial(layers_figure, material.rows)
    alt = "Angles between B and the transpose of W, and between gradients, by layer."
    drawn = shown.drawing(material.run.workdir, Drawing("angles", draw, alt, caption))
    said = ", ".join(f"{angle:.1f}" for angle in angles)
    note = page.note(f"At the end, input side first: {said} degrees.")
    return Section("angles", "Feedback weights", drawn + note)


def _information(material: Material) -> Section | None:
    """What the probes show, in the words of findings.json, and its tables."""
    found = read_findings(material.run.workdir)
    if found is None:
        return None
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.sentences)
    parts = [*map(shown.figure, material.information), *map(shown.table, found.tables)]
    html = f"<ul>{said}</ul>{''.join(parts)}"
    return Section("information", "Information in the network", html)


SECTIONS: tuple[Maker, ...] = (
    _stages, _costs, _curves, _terms, _angles, _information
)  # fmt: skip
