"""What probed runs show, in words that their statistics support, and tables.

Runs that differ in their seed only are one group; what is said of a group's order or
change has an interval over its runs, and of a single run it is not called a finding.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dib_jax.analysis import statistics as stats
from dib_jax.analysis.recording import (
    SPLITS,
    probe_files,
    read_grams,
    read_information,
)
from dib_jax.analysis.runs import END_TO_END, read_json
from dib_jax.settings import flatten
from dib_jax.tasks.exhibits import Cell, Table
from dib_jax.training.workdir import finished, read_results, write_json

TOLERANCE = 0.05
FACTORS = (0.5, 1.0, 2.0)
FILE = "findings.json"
_MANY_PROBES = 10  # at most so many are looked at with other kernel widths
# Fields in which the runs of a group may differ.
_FREE = {"seed", "workdir", "dataset.data_dir", "dataset.placement"}
_ROLES = {"X": "nhsic_input", "Y": "nhsic_target"}
# What is measured of convergence: key, words for sentences, None where only the table
# has it.
_CONVERGENCE = {
    "CKA": ("cka_final", "CKA to the last probe"),
    "linear CKA": ("linear_cka_final", None),
    "I(X;T)": ("input_stage", "I(X;T)"),
    "I(T;Y)": ("stage_target", None),
}
_SHOWN = {
    "entropy": "H(T)",
    "input_stage": "I(X;T)",
    "stage_target": "I(T;Y)",
    "stage_target_shuffled": "shuffled Y",
    "conditional_target": "I(T;Y|before)",
    "nhsic_input": "nHSIC X",
    "nhsic_target": "nHSIC Y",
    "effective_rank": "effective rank",
}


class Probed(NamedTuple):
    """A probed run.

    Attributes:
        workdir: its folder.
        config: its config, flat, by dotted field.
        information: of `read_information`.
        seconds: of its training; None while it runs.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    information: dict[str, np.ndarray]
    seconds: float | None


class Findings(NamedTuple):
    """What a group of runs shows.

    Attributes:
        name: of the group, for people.
        runs: names of its folders.
        sentences: what the statistics support.
        tables: the numbers.
        statistics: the same for programs, plain JSON.
    """

    name: str
    runs: tuple[str, ...]
    sentences: list[str]
    tables: list[Table]
    statistics: dict[str, Any]


class _Part(NamedTuple):
    """What one question adds to the findings."""

    sentences: Sequence[str]
    tables: Sequence[Table] = ()
    statistics: dict[str, Any] | None = None


Group = Sequence[Probed]


def read_probed(workdir: pathlib.Path) -> Probed:
    """A probed run from its folder.

    Args:
        workdir: of a run, finished or not.

    Raises:
        ValueError: it was not probed, or a file is damaged.
    """
    config = flatten(read_json(workdir / "config.json"))
    seconds = read_results(workdir)["seconds"] if finished(workdir) else None
    return Probed(workdir, config, read_information(workdir), seconds)


def groups(runs: Group) -> list[list[Probed]]:
    """Runs of one config with different seeds, probed equally far, together.

    Args:
        runs: any.

    Returns:
        The groups, in the order of their first runs.
    """
    found: dict[str, list[Probed]] = {}
    for run in runs:
        same = {name: v for name, v in run.config.items() if name not in _FREE}
        epochs = run.information["train/epoch"].tolist()
        found.setdefault(json.dumps([same, epochs], default=str), []).append(run)
    return list(found.values())


def find(runs: Group, *, controls: bool = False, split: str = "train") -> Findings:
    """Statistics, sentences and tables of one group.

    Args:
        runs: of one group, one or more.
        controls: whether the slow controls are made too: other kernel widths, and the
            estimator on Gaussians.
        split: that the sentences are about; the tables have both.

    Returns:
        The findings.
    """
    probes, stages = runs[0].information[f"{split}/sigma"].shape
    parts = [_Part([_what_was_measured(runs, split)], [_last_probe(runs)])]
    if probes > 1:
        parts.append(_changes(runs, split))
        if stages > 1:
            parts.append(_convergence(runs, split))
            parts.append(_markov(runs, split, controls))
            parts.append(_roles(runs, split))
    parts.append(_Part([_targets(runs, split)]))
    if controls:
        parts.append(_estimator(runs, split))
    parts.append(_Part(_cost(runs, split)))
    statistics: dict[str, Any] = {"split": split, "runs": len(runs)}
    for part in parts:
        statistics |= part.statistics or {}
    return Findings(
        name_of(runs[0]),
        tuple(run.workdir.name for run in runs),
        [sentence for part in parts for sentence in part.sentences],
        [table for part in parts for table in part.tables],
        statistics,
    )


def write_findings(workdir: pathlib.Path, findings: Findings) -> pathlib.Path:
    """Write findings.json beside a run.

    Args:
        workdir: one of the group's.
        findings: of the group.

    Returns:
        Its path.

    Raises:
        OSError: the workdir cannot be written.
    """
    names = ("title", "header", "rows")
    tables = [{name: getattr(t, name) for name in names} for t in findings.tables]
    write_json(workdir / FILE, _plain({**findings._asdict(), "tables": tables}))
    return workdir / FILE


def read_findings(workdir: pathlib.Path) -> Findings | None:
    """What `write_findings` wrote; None where there is nothing, or it is damaged."""
    try:
        found = json.loads((workdir / FILE).read_text(encoding="utf-8"))
        tables = [
            Table(t["title"], tuple(t["header"]), [tuple(row) for row in t["rows"]])
            for t in found["tables"]
        ]
        return Findings(
            found["name"],
            tuple(found["runs"]),
            found["sentences"],
            tables,
            found["statistics"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(found: Sequence[Group], *, split: str = "train") -> Table:
    """The last probe of several groups, one beside the other.

    Args:
        found: groups.
        split: "train" or "validation".

    Returns:
        A row for each group and stage, mean ± standard deviation over its runs.
    """
    rows = [
        (name_of(runs[0]), len(runs), *row)
        for runs in found
        for row in _stage_rows(runs, split, -1)
    ]
    header = ("runs of", "n", "stage", *_SHOWN.values())
    return Table(f"Last probe of each group, {split}", header, rows)


def differentiation(
    found: Sequence[Group], *, split: str = "train"
) -> tuple[list[str], Table]:
    """Whether the stages of one group take more different roles than another's.

    Args:
        found: groups; compared are those of one data set and one number of stages, of
            which at least one was trained end to end, with that one.
        split: "train" or "validation".

    Returns:
        Sentences and the table they are made of; both empty of rows where there is
        nothing to compare.

    Source: the question is that of Sakamoto & Sato, arXiv 2402.09050; the statistic,
        `role_differentiation`, is this package's.
    """

    def kind(runs: Group) -> tuple[Any, ...]:
        network = {k: v for k, v in runs[0].config.items() if k.startswith("model.")}
        return runs[0].config["dataset.name"], json.dumps(network, default=str)

    def has_roles(runs: Group) -> bool:
        sigma = runs[0].information.get(f"{split}/sigma")
        return sigma is not None and sigma.shape[1] > 1

    baselines = [runs for runs in found if _is_end_to_end(runs[0])]
    sentences: list[str] = []
    rows: list[tuple[Cell, ...]] = []
    for baseline in baselines:
        for other in found:
            same = kind(other) == kind(baseline) and has_roles(other)
            if same and not _is_end_to_end(other[0]):
                sentence, of_pair = _beside(baseline, other, split)
                sentences.append(sentence)
                rows += of_pair
    header = ("end to end beside", "nHSIC with", "end to end", "other", "difference",
              "95 % interval")  # fmt: skip
    return sentences, Table(f"How differently the stages change, {split}", header, rows)


def _is_end_to_end(run: Probed) -> bool:
    return run.config["algorithm.name"] == END_TO_END


def _beside(
    baseline: Group, other: Group, split: str
) -> tuple[str, list[tuple[Cell, ...]]]:
    """Roles in one group beside those end to end: a sentence and rows of the table."""
    name, said = name_of(other[0]), []
    rows: list[tuple[Cell, ...]] = []
    for variable, key in _ROLES.items():
        one, two = (
            stats.role_differentiation(_values(runs, split, key))
            for runs in (baseline, other)
        )
        apart = stats.bootstrap_difference(one, two)
        interval = _interval(apart.low, apart.high)
        means = float(one.mean()), float(two.mean())
        rows.append((name, variable, *means, apart.mean, interval))
        said.append(
            f"by nHSIC with {variable} {means[0]:.2f} end to end and {means[1]:.2f} "
            f"here, a difference of {_signed(apart.mean)}"
        )
        if math.isnan(apart.low):
            said[-1] += ": in one run of a kind, so no difference is claimed"
        elif apart.low <= 0 <= apart.high:
            said[-1] += f" ({interval}): no difference is established, for the "
            said[-1] += "interval holds 0"
        else:
            more = "more" if apart.low > 0 else "less"
            said[-1] += f" ({interval}): {more} different end to end"
    sentence = (
        f"{name} beside end to end, {len(other)} and {len(baseline)} runs: how "
        "differently the stages change (standard deviation over stages of the change "
        f"from the untrained network on) is {'; '.join(said)}."
    )
    return sentence, rows


def as_text(table: Table) -> str:
    """A table in columns, for a terminal."""

    def cell(value: Cell) -> str:
        if value is None:
            return "–"
        return value if isinstance(value, str) else f"{value:.4g}"

    cells = [table.header, *([cell(value) for value in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    return "\n".join([table.title, *lines])


def name_of(run: Probed) -> str:
    """Data set, algorithm and objective of a run, in words."""
    words = [run.config["dataset.name"], run.config["algorithm.name"]]
    if not _is_end_to_end(run):
        words.append(run.config["objective.name"])
    return ", ".join(filter(None, words))


# Sentences. Each says no more than its numbers, and with how many runs.


def _values(runs: Group, split: str, key: str) -> np.ndarray:
    """A quantity of each run at each probe, (r, p, …)."""
    return np.stack([run.information[f"{split}/{key}"] for run in runs]).astype(float)


def _what_was_measured(runs: Group, split: str) -> str:
    found = runs[0].information
    epochs = found[f"{split}/epoch"]
    return (
        f"{name_of(runs[0])}: {_count(len(runs), 'run')}, "
        f"{_count(len(epochs), 'probe')} from epoch {epochs[0]} to {epochs[-1]}, "
        f"{int(found[f'{split}/samples'])} samples of the {split} split, "
        f"α = {float(found[f'{split}/alpha']):g}, kernel width by the rule "
        f"{runs[0].config['analysis.bandwidth']}"
        + ("." if runs[0].seconds is not None else "; the run is not finished.")
    )


def _convergence(runs: Group, split: str) -> _Part:
    epochs = runs[0].information[f"{split}/epoch"]
    trained = runs[0].information[f"{split}/trained"] > 0
    # A stage is done before the next one begins.
    imposed = bool(np.any(trained[:, :-1] & ~trained[:, 1:]))
    sentences: list[str] = []
    rows: list[tuple[Cell, ...]] = []
    statistics: dict[str, Any] = {}
    for measure, (key, words) in _CONVERGENCE.items():
        values = _values(runs, split, key)
        if "CKA" in measure:
            values[:, -1] = 1  # exactly 1 in the end, but for rounding
        orders: dict[str, stats.Order] = {}
        for of in ("final", "change"):
            reached = np.stack(
                [
                    stats.convergence_epochs(
                        stats.deviation(of_run, of=of), epochs, tolerance=TOLERANCE
                    )
                    for of_run in values
                ]
            )
            order = orders[of] = stats.convergence_order(reached)
            mean = reached.mean(axis=0)
            what = "of its last value" if of == "final" else "of its whole change"
            name = f"{measure}, within 5 % {what}"
            rows.append((name, *mean, order.tau, _interval(order.low, order.high)))
            statistics[f"{measure}, {of}"] = {
                "epochs": reached.tolist(),
                "tau": order.tau,
                "interval": [order.low, order.high],
            }
            if words and of == "final":
                early = np.flatnonzero(mean == epochs[0])
                sentences.append(_when(words, mean, early, several=len(runs) > 1))
        if words:
            sentences.append(_about_order(words, orders, imposed=imposed))
    gap = _count(int(np.diff(epochs).max()), "epoch")
    sentences.append(
        f"Probes are up to {gap} apart: no epoch of convergence is known better than "
        "that."
    )
    title = f"Epoch from which a stage stays near its end, {split}"
    table = _by_stage(title, "by", rows, ("Kendall’s τ", "95 % interval"))
    return _Part(sentences, [table], {"convergence": statistics})


def _when(words: str, mean: np.ndarray, early: np.ndarray, *, several: bool) -> str:
    said = (
        f"By {words} the stages stay within 5 % of their last value from epoch "
        f"{_listed(mean)} on{', means over the runs' * several}"
    )
    if len(early):
        verb = "is" if len(early) == 1 else "are"
        said += (
            f"; {_stages(early)} {verb} so untrained, which tells nothing of training"
        )
    return said + "."


def verdict(order: stats.Order) -> str:
    """What an interval of τ says of the order: bottom to top, top to bottom, or "".

    Args:
        order: of `convergence_order`.
    """
    if order.low > 0:
        return "bottom to top"
    return "top to bottom" if order.high < 0 else ""


def _about_order(words: str, orders: dict[str, stats.Order], *, imposed: bool) -> str:
    order, other = orders["final"], orders["change"]
    said = f"Kendall’s τ between depth and that epoch, by {words}, is {order.tau:.2f}"
    if math.isnan(order.low):
        said += " in one run, without an interval: no order is claimed"
    else:
        said += (
            f" (95 % bootstrap interval {_interval(order.low, order.high)} over "
            f"{order.runs} runs): "
        )
        said += verdict(order) or "no order is established, for the interval holds 0"
        if verdict(other) != verdict(order):
            said += (
                f"; by 5 % of the whole change it is {other.tau:.2f} "
                f"({_interval(other.low, other.high)}), another answer, so it depends "
                "on what near means"
            )
    if imposed:
        said += "; stages that train one after the other have this order imposed"
    return said + "."


def _change(runs: Group, split: str, key: str) -> np.ndarray:
    """From the untrained network to the last probe, (r, s)."""
    values = _values(runs, split, key)
    return values[:, -1] - values[:, 0]


def _changes(runs: Group, split: str) -> _Part:
    change = _change(runs, split, "input_stage")
    mean, (low, high) = change.mean(axis=0), stats.bootstrap_interval(change)
    found = [
        {"mean": each, "interval": [low[stage], high[stage]]}
        for stage, each in enumerate(mean)
    ]
    claims = []
    for verb, agrees in (("falls", high < 0), ("rises", low > 0)):
        moved = [
            f"stage {k} by {abs(mean[k]):.2f} ({_interval(low[k], high[k])})"
            for k in np.flatnonzero(agrees)
        ]
        if moved:
            claims.append(f"it {verb} in {' and '.join(moved)}")
    said = (
        "From the untrained network to the last probe I(X;T) changes by "
        f"{_listed(mean, '{:+.2f}')} bits, stage by stage"
    )
    if len(runs) < 2:
        said += ", in one run: no interval, so nothing is claimed."
    else:
        said += f"; {'; '.join(claims) or 'every interval over the runs holds 0'}."
    return _Part([said], statistics={"change_of_input_stage": found})


def _markov(runs: Group, split: str, controls: bool) -> _Part:
    whole = np.stack([stats.chain(run.information, split) for run in runs])
    names = ["Y", "X", *(f"T{k}" for k in range(whole.shape[-1] - 2))]
    found: dict[str, stats.Violations] = {
        "all probes": stats.data_processing_violations(whole),
        "untrained network": stats.data_processing_violations(whole[:, 0]),
        "last probe": stats.data_processing_violations(whole[:, -1]),
    }

    def where(violations: stats.Violations) -> str:
        return " → ".join(names[i] for i in violations.worst)

    overall = found["all probes"]
    said = (
        "I(A;C) ≤ min(I(A;B), I(B;C)) along the chain Y → X → T0 → … is violated by "
        f"more than 0.01 bits in {overall.violated} of {overall.triples} triples "
        f"({_share(overall):.0f} %)"
    )
    if overall.violated:
        said += (
            f", by {overall.mean:.2f} bits in the mean and {overall.largest:.2f} at "
            f"most, {where(overall)}; in the untrained network in "
            f"{_share(found['untrained network']):.0f} %"
        )
    sentences = [f"{said}."]
    if controls and all(probe_files(run.workdir) for run in runs):
        by_width = _at_widths(runs, split)
        found |= {f"kernels × {factor:g}": v for factor, v in by_width.items()}
        sentences.append(_about_widths(by_width))
    rows = [
        (name, v.triples, v.violated, _share(v), v.mean, v.largest, where(v))
        for name, v in found.items()
    ]
    table = Table(
        f"Violations of the data-processing inequality, {split}",
        ("at", "triples", "violated", "%", "mean bits", "largest excess", "where"),
        rows,
    )
    statistics = {name: violations._asdict() for name, violations in found.items()}
    return _Part(sentences, [table], {"data_processing": statistics})


def _about_widths(found: dict[float, stats.Violations]) -> str:
    listed = ", ".join(
        f"{_share(v):.0f} % by {v.mean:.2f} bits (× {factor:g})"
        for factor, v in found.items()
    )
    moves = _moves([_share(v) for v in found.values()], least=5)
    moves = moves or _moves([v.mean for v in found.values()], least=0.05)
    ending = (
        "they move with the width, so they are the kernel’s at least as much as the "
        "network’s."
        if moves
        else "they hardly move with the width."
    )
    return f"With other kernel widths they are {listed}: {ending}"


def _moves(values: Sequence[float], *, least: float) -> bool:
    """Whether values differ twofold, and by more than what is nothing."""
    return max(values) > 2 * min(values) and max(values) - min(values) > least


def _at_widths(runs: Group, split: str) -> dict[float, stats.Violations]:
    chains: dict[float, list[np.ndarray]] = {factor: [] for factor in FACTORS}
    for run in runs:
        files = probe_files(run.workdir)
        chosen = np.unique(np.linspace(0, len(files) - 1, _MANY_PROBES).round())
        for index in chosen.astype(int):
            target, nodes = read_grams(files[index], split)
            alpha = float(run.information[f"{split}/alpha"])
            for factor, found in chains.items():
                found.append(
                    stats.chain_at_width(target, nodes, factor=factor, alpha=alpha)
                )
    return {
        factor: stats.data_processing_violations(np.stack(found))
        for factor, found in chains.items()
    }


def _share(violations: stats.Violations) -> float:
    return 100 * violations.violated / violations.triples


def _roles(runs: Group, split: str) -> _Part:
    rows: list[tuple[Cell, ...]] = []
    statistics: dict[str, Any] = {}
    said = []
    for name, key in _ROLES.items():
        change = _change(runs, split, key)
        mean, (low, high) = change.mean(axis=0), stats.bootstrap_interval(change)
        spread = stats.role_differentiation(_values(runs, split, key))
        ends = stats.bootstrap_interval(spread)
        rows.append((name, *mean, float(spread.mean()), _interval(*ends)))
        statistics[f"nHSIC {name}"] = {
            "change": change.tolist(),
            "differentiation": spread.tolist(),
            "interval": list(ends),
        }
        moved = [
            f"{verb} in {_stages(np.flatnonzero(agrees), last=', ')}"
            for verb, agrees in (("rises", low > 0), ("falls", high < 0))
            if agrees.any()
        ]
        said.append(f"with {name} by {_listed(mean, '{:+.2f}')}")
        if moved:
            said[-1] += f", and {' and '.join(moved)} (intervals over the runs)"
    title = f"Change of the normalised HSIC, untrained to last probe, {split}"
    table = _by_stage(title, "with", rows, ("differentiation", "95 % interval"))
    sentence = f"The normalised HSIC changes {'; '.join(said)}, stage by stage."
    return _Part([sentence], [table], {"roles": statistics})


def _targets(runs: Group, split: str) -> str:
    def at(key: str, probe: int = -1) -> str:
        return _mean(_values(runs, split, key)[:, probe, -1])

    entropy = float(runs[0].information[f"{split}/target_entropy"])
    return (
        f"In the last stage I(T;Y) is {at('stage_target')} bits of H(Y) = "
        f"{entropy:.2f}; {at('stage_target_shuffled')} with shuffled targets, which "
        f"is the estimator’s, and {at('stage_target', 0)} in the untrained network."
    )


def _estimator(runs: Group, split: str) -> _Part:
    count = int(runs[0].information[f"{split}/samples"])
    rows = stats.estimator_bias(
        alpha=float(runs[0].information[f"{split}/alpha"]),
        bandwidth=runs[0].config["analysis.bandwidth"],
        samples=sorted({max(2, count // 2), count}),
    )

    def of(name: str, **wanted: float) -> np.ndarray:
        return np.array(
            [row[name] for row in rows if wanted.items() <= row.items()], float
        )

    said = []
    for truth in (0.0, 2.0):
        found = of("estimate", samples=count, truth=truth)
        said.append(
            f"{found.min():.2f} to {found.max():.2f} bits where {truth:g} is true"
        )
    fewest = min(row["samples"] for row in rows)
    errors = [np.abs(of("bias", samples=n)).mean() for n in (fewest, count)]
    widths = ", ".join(
        f"{_signed(of('bias', factor=factor).mean())} (× {factor:g})"
        for factor in sorted({row["factor"] for row in rows})
    )
    sentence = (
        f"The estimator itself, on Gaussians of {count} samples, 1 to 64 dimensions "
        f"and kernels × 0.5 to × 2, gives {' and '.join(said)}: values of different "
        "dimensions or widths cannot be compared, only courses of one. Its mean error "
        f"is {errors[0]:.2f} bits with half as many samples and {errors[1]:.2f} with "
        f"all; its mean bias by kernel width {widths}."
    )
    title = "The estimator on Gaussians whose information is known, in bits"
    table = Table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
    return _Part([sentence], [table], {"estimator_bias": rows})


def _cost(runs: Group, split: str) -> list[str]:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if len(seconds) < len(runs):
        return []
    probes, training = _values(runs, split, "seconds").sum(), sum(seconds)
    return [
        f"The probes took {probes:.1f} s beside {training:.1f} s of training, "
        f"{100 * probes / (probes + training):.1f} % of both."
    ]


# Tables


def _last_probe(runs: Group) -> Table:
    several = len(runs[0].information["train/epoch"]) > 1
    rows = [
        (split, when, *row)
        for split in SPLITS
        if f"{split}/sigma" in runs[0].information
        for when, probe in ([("untrained", 0)] * several + [("last", -1)])
        for row in _stage_rows(runs, split, probe)
    ]
    header = ("split", "probe", "stage", *_SHOWN.values())
    return Table("The untrained network and the last probe", header, rows)


def _stage_rows(runs: Group, split: str, probe: int) -> list[tuple[Cell, ...]]:
    values = [_values(runs, split, key)[:, probe] for key in _SHOWN]
    stages = values[0].shape[1]
    return [(k, *(_mean(each[:, k]) for each in values)) for k in range(stages)]


def _by_stage(
    title: str, first: str, rows: list[tuple[Cell, ...]], last: tuple[str, str]
) -> Table:
    """A table with a column for each stage between the first and the last ones."""
    stages = [f"stage {k}" for k in range(len(rows[0]) - 1 - len(last))]
    return Table(title, (first, *stages, *last), rows)


# Words


def _mean(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _listed(values: Iterable[float], form: str = "{:.4g}") -> str:
    words = [form.format(value).replace("-", "−") for value in values]
    return words[0] if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"


def _stages(numbers: np.ndarray, *, last: str = " and ") -> str:
    """The name of one stage, or the names of several."""
    words = [str(number) for number in numbers]
    if len(words) == 1:
        return f"stage {words[0]}"
    return f"stages {', '.join(words[:-1])}{last}{words[-1]}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _interval(low: float | np.ndarray, high: float | np.ndarray) -> str:
    if np.isnan(low):
        return "–"
    return f"{low:.2f} to {high:.2f}".replace("-", "−")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _plain(value: Any) -> Any:
    """The same as JSON can hold it: None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
