"""Sections on the training: stages, costs, curves, terms, information."""

import functools
from collections.abc import Callable
from typing import Any

from dib_jax.analysis import figures, page
from dib_jax.analysis.findings import Table, read_findings
from dib_jax.analysis.information_figures import Rendered
from dib_jax.analysis.page import Section, escape
from dib_jax.analysis.report import wording
from dib_jax.analysis.report.material import (
    MANY,
    Maker,
    Material,
    save_figure,
)


def _stages(material: Material) -> Section | None:
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
    drawn = save_figure(
        material,
        "stages",
        functools.partial(
            figures.stage_metric, entries, metric=material.metric, baseline=baseline
        ),
        alt=f"{label} after each of {len(entries)} stages.",
        caption=caption,
    )
    return Section("stages", f"{label} after each stage", drawn)


def _costs(material: Material) -> Section | None:
    """The table of stages."""
    label = wording.within(figures.metric_label(material.metric))
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
            lambda entry: wording.percent(
                (entry.get("validation") or {}).get(material.metric)
            ),
        ),
        (
            f"Test {label}",
            lambda entry: wording.percent(
                (entry.get("test") or {}).get(material.metric)
            ),
        ),
        (
            "Test loss",
            lambda entry: wording.decimal((entry.get("test") or {}).get("loss")),
        ),
        *(
            (
                f"Test {wording.within(figures.metric_label(name))}",
                lambda entry, name=name: wording.percent(
                    entry.get("test", {}).get(name)
                ),
            )
            for name in run.results["test"]
            if name not in (material.metric, "loss")
        ),
        ("Epochs", lambda entry: wording.integer(entry.get("epochs"))),
        ("Time", lambda entry: wording.duration(entry.get("seconds"))),
        ("Temporaries", lambda entry: wording.size(entry.get("temp_bytes"))),
        ("Peak memory", lambda entry: wording.size(entry.get("peak_bytes"))),
        ("Work per step", lambda entry: wording.work(entry.get("flops"))),
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
    if wording.is_number(results.get("seconds")):
        compiled = results.get("compile_seconds")
        known = wording.is_number(compiled)
        more = f", of which {wording.duration(compiled)} compiling" if known else ""
        said.append(f"The run took {wording.duration(results['seconds'])}{more}.")
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


def _curves(material: Material) -> Section | None:
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
    drawn = save_figure(
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
        vector=len(_trained(material)) <= MANY,
        caption=(
            f"{label} and task loss on the training{validated} split. Training values "
            "are averages over the epoch while the weights change, with augmentation "
            f"where there is any.{where}"
        ),
    )
    return Section("training", "Training", drawn)


def _terms(material: Material) -> Section | None:
    names = figures.terms(material.rows)
    if len(names) < 2:
        return None  # the task's loss alone is among the training curves
    caption = (
        "Terms of the local loss, averages over each epoch’s training batches. "
        "Information is that of a batch, in bits."
    )
    if "local_gradient" in names:
        caption += " Gradients are with respect to the stage’s features."
    drawn = save_figure(
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
        vector=len(_trained(material)) <= MANY,
        caption=caption,
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
            [stage, *(wording.decimal(last[stage].get(name)) for name in names)]
            for stage in sorted(last)
        ],
        text={0},
        caption="In the last epoch of each stage",
    )
    return Section("terms", "Terms of the loss", drawn + table)


def _trained(material: Material) -> set[int]:
    return {row["stage"] for row in material.rows}


def _information(material: Material) -> Section | None:
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


SECTIONS: tuple[Maker, ...] = (_stages, _costs, _curves, _terms, _information)
