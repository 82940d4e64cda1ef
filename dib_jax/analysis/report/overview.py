"""The head of a report: what was run, and what came out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dib_jax.analysis import page
from dib_jax.analysis.page import escape
from dib_jax.analysis.report import wording
from dib_jax.analysis.report.material import Material
from dib_jax.analysis.runs import Run

_ARXIV = "https://arxiv.org/abs/2510.27651"
_RECONSTRUCTION = (
    "<p>GreedyDIB here is a reconstruction from the abstract of Lyu, Wu and Du, "
    f'<a href="{_ARXIV}">arXiv 2510.27651</a>, and from the papers it builds on. It is '
    "not the authors’ code, and no number on this page is theirs.</p>"
)


def footer(run: Run) -> str:
    """HTML of where GreedyDIB here comes from; "" for a run without it."""
    is_dib = run.section("objective").get("name") == "dib"
    return _RECONSTRUCTION if is_dib and "objective" not in run.unused else ""


def title(run: Run) -> str:
    """The title of the page."""
    dataset = run.results["dataset"]
    if run.end_to_end:
        return f"End-to-end training on {dataset}"
    if "objective" in run.unused:
        return f"{run.algorithm} on {dataset}"
    objective = run.section("objective").get("name", run.results.get("objective"))
    return f"{'GreedyDIB' if objective == 'dib' else objective} on {dataset}"


def subtitle(run: Run) -> str:
    """What the network is and how it was trained, in one line."""
    name = run.section("model").get("name", "network")
    name = "its own network" if "model" in run.unused else name
    # The first line of what the algorithm's factory says of itself.
    about = run.results.get("algorithm_about") or f"trained by {run.algorithm}"
    how = str(about).rstrip(".")
    stages = f"{run.stage_count} stage{'s' * (run.stage_count > 1)}"
    return f"{name}, {stages}: {how[:1].lower()}{how[1:]}"


def lead(material: Material) -> str:
    """HTML of the main numbers and of what was run."""
    return _headline(material) + _what_was_run(material)


def _headline(material: Material) -> str:
    run, other, measure = material.run, material.baseline, material.measure
    value = run.results["test"][material.metric]
    detail = "the whole network" if run.end_to_end else "last stage"
    if measure.counts_samples:
        low, high = wording.wilson(value, material.samples)
        detail += f"; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    label = f"Test {measure.inline}"
    cards = [_card(f"{measure.scale * value:.2f}", measure.unit, label, detail)]
    if other is not None:
        against = other.results["test"][material.metric]
        name = "End-to-end baseline" if other.end_to_end else "Stage by stage"
        epochs = f", {other.passes} epochs" if other.passes else ""
        same = f"same network, data and seed{epochs}"
        shown = f"{measure.scale * against:.2f}"
        difference = f"{measure.scale * (value - against):+.2f}".replace("-", "−")
        unit = "points" if measure.unit == "%" else measure.unit
        minus = "this run minus " + ("the baseline" if other.end_to_end else "it")
        cards.append(_card(shown, measure.unit, name, same, " other"))
        cards.append(_card(difference, unit, "Difference", minus, " other"))
    return f'<div class="results">{"".join(cards)}</div>' + _chance(material)


def _chance(material: Material) -> str:
    """A note where the run is no better than naming the commonest class always."""
    labels = material.answers.test.get("labels")
    if not material.measure.counts_samples or labels is None or np.ndim(labels) != 1:
        return ""
    counts = np.bincount(labels)
    share = counts.max() / counts.sum()
    low, _ = wording.wilson(material.run.results["test"][material.metric], counts.sum())
    if low > share:
        return ""
    names = material.answers.class_names
    name = names[counts.argmax()] if len(names) > counts.argmax() else counts.argmax()
    return page.note(
        "This is chance: whoever always says the commonest class of the test split, "
        f"{escape(name)}, is right in {100 * share:.1f} %, which is not below the "
        "interval above. More epochs or another optimizer.learning_rate may help, and "
        "--help with the config says what can be set."
    )


def _card(value: str, unit: str, label: str, detail: str, kind: str = "") -> str:
    unit = f'<span class="unit">{escape(unit)}</span>' if unit else ""
    return (
        f'<div class="result{kind}">'
        f'<span class="value">{value}{unit}</span>'
        f'<span class="label">{escape(label)}</span>'
        f'<span class="detail">{escape(detail)}</span></div>'
    )


def _duplicates(material: Material) -> str:
    """How many test samples the network has seen in training; "" where unknown."""
    count = (material.run.results.get("duplicates") or {}).get("test")
    if count is None:
        return ""
    noun = material.answers.noun
    return (
        f"{count or 'none'} of the {material.samples:,} test {noun} "
        f"{'is' if count == 1 else 'are'} identical to one of the training {noun}"
    )


def _what_was_run(material: Material) -> str:
    run, results, answers = material.run, material.run.results, material.answers
    about = str(results.get("dataset_description") or "").strip().rstrip(".")
    about += "; " * bool(about) + f"{material.samples:,} test {answers.noun}"
    if answers.class_names:
        about += f", {len(answers.class_names)} classes"
    facts = {
        "Data": f"{results['dataset']}: {about}",
        "Duplicates": _duplicates(material),
        "Network": _used(run, "model"),
        "Head": _used(run, "head"),
        "Objective": "the task’s own loss"
        if run.end_to_end
        else _used(run, "objective"),
        "Training": _training(run),
        "Seed": f"{results.get('seed')}, one run",
    }
    html = page.facts({name: value for name, value in facts.items() if value})
    collapsed = [str(e["stage"]) for e in results["stages"] if e.get("collapsed")]
    if collapsed:
        html += page.note(
            "Collapsed at the end of their training, with features that are the same "
            f"for all samples or next to 0: stage {escape(', '.join(collapsed))}."
        )
    other = material.baseline
    if other is None and not run.end_to_end:
        html += page.note(
            "There is no end-to-end baseline beside this run yet; the same command "
            f"with <code>--config.algorithm.name={run.counterpart}</code> makes one: "
            'see <a href="#reproduce">To reproduce</a>.'
        )
    elif other is not None:
        name = "end-to-end baseline" if other.end_to_end else "stage-by-stage run"
        loss = _used(other, "objective")
        how = "" if other.end_to_end or not loss else f", objective {loss}"
        html += page.note(
            f"The {name} is {escape(other.workdir.name)} in the folder beside this "
            "one, with the same settings but for the algorithm: "
            f"{escape(_training(other) + how)}."
        )
    return html


def _used(run: Run, section: str) -> str:
    """A section of the config in words; "" where the algorithm had no use for it."""
    return "" if section in run.unused else _described(run.section(section))


def _training(run: Run) -> str:
    """Algorithm and epochs in words."""
    words = _described(run.section("algorithm")) or run.algorithm
    epochs = [entry.get("epochs") for entry in run.results["stages"]]
    if None in epochs:
        return words
    if len(set(epochs)) > 1:
        return f"{words}, {', '.join(map(str, epochs))} epochs"
    each = " each" * (len(epochs) > 1)
    return f"{words}, {epochs[0]} epoch{'s' * (epochs[0] != 1)}{each}"


def _described(section: Mapping[str, Any]) -> str:
    """A section of the config as `name (option value, …)`."""
    options = [
        f"{key} {wording.setting(x)}" for key, x in section.items() if key != "name"
    ]
    name = str(section.get("name", ""))
    return name + (f" ({', '.join(options)})" if name and options else "")
