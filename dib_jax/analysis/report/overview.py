"""The head of a report: what was run, and what came out."""

from collections.abc import Mapping
from typing import Any

from dib_jax.analysis import figures, page
from dib_jax.analysis.page import escape
from dib_jax.analysis.report import wording
from dib_jax.analysis.report.material import (
    END_TO_END,
    Material,
    Run,
)

_ARXIV = "https://arxiv.org/abs/2510.27651"
FOOTER = (
    "<p>GreedyDIB here is a reconstruction from the abstract of Lyu, Wu and Du, "
    f'<a href="{_ARXIV}">arXiv 2510.27651</a>, and from the papers it builds on. It is '
    "not the authors’ code, and no number on this page is theirs.</p>"
)


def title(run: Run) -> str:
    """The title of the page."""
    dataset = run.results["dataset"]
    if run.end_to_end:
        return f"End-to-end training on {dataset}"
    objective = run.section("objective").get("name", run.results.get("objective"))
    return f"{'GreedyDIB' if objective == 'dib' else objective} on {dataset}"


def subtitle(run: Run) -> str:
    """What the network is and how it was trained, in one line."""
    name = run.section("model").get("name", "network")
    stages = f"{run.stage_count} stage{'s' * (run.stage_count > 1)}"
    how = "stage by stage, without end-to-end back-propagation"
    if run.end_to_end:
        how = "end to end by back-propagation"
    elif run.penalized:
        how = "end to end by back-propagation, with a penalty at every stage"
    return f"{name}, {stages}, trained {how}"


def lead(material: Material) -> str:
    """HTML of the main numbers and of what was run."""
    return _headline(material) + _what_was_run(material)


def _headline(material: Material) -> str:
    run, other = material.run, material.baseline
    name = wording.within(figures.metric_label(material.metric))
    value = run.results["test"][material.metric]
    detail = "the whole network" if run.end_to_end else "last stage"
    if material.metric == "accuracy":
        low, high = wording.wilson(value, len(material.predictions.labels))
        detail += f"; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    cards = [_result(value, f"Test {name}", detail)]
    if other is None:
        return f'<div class="results">{"".join(cards)}</div>'
    compared = other.results["test"][material.metric]
    label = "End-to-end baseline" if other.end_to_end else "Stage by stage"
    epochs = f"{other.passes} epochs" if other.passes else ""
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


def _what_was_run(material: Material) -> str:
    run, results = material.run, material.run.results
    description = str(results.get("dataset_description") or "").strip().rstrip(".")
    facts = {
        "Data": f"{results['dataset']}: {description + '; ' if description else ''}"
        f"{len(material.predictions.labels):,} test pictures, "
        f"{len(material.predictions.class_names)} classes",
        "Duplicates": _duplicates(results, len(material.predictions.labels)),
        "Network": _described(run.section("model")),
        "Head": _described(run.section("head")),
        "Objective": "the task’s own loss" if run.end_to_end else _objective(run),
        "Training": _training(run),
        "Seed": f"{results.get('seed')}, one run",
    }
    html = page.facts({name: value for name, value in facts.items() if value})
    collapsed = [str(e["stage"]) for e in results["stages"] if e.get("collapsed")]
    if collapsed:
        html += (
            '<p class="note">Collapsed at the end of their training, with features '
            "that are the same for all samples or next to 0: stage "
            f"{escape(', '.join(collapsed))}.</p>"
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
    return _described(run.section("objective"))


def _training(run: Run) -> str:
    """Schedule and epochs in words."""
    schedule = run.section("schedule")
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
        f"{name} {wording.setting(value)}"
        for name, value in section.items()
        if name != "name"
    ]
    name = str(section.get("name", ""))
    return name + (f" ({', '.join(options)})" if name and options else "")
