"""What probed runs show, in words that their statistics support, and tables.

Runs that differ in their seed only are one group; what is said of a group's order or
change has an interval over its runs, and of a single run it is not called a finding.
"""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dib_jax.analysis.recording import (
    SPLITS,
    probe_files,
    read_grams,
    read_information,
)
from dib_jax.analysis.statistics import (
    Order,
    Violations,
    bootstrap_difference,
    bootstrap_interval,
    chain,
    chain_at_width,
    convergence_epochs,
    convergence_order,
    data_processing_violations,
    deviation,
    estimator_bias,
    role_differentiation,
)
from dib_jax.training.config import flatten
from dib_jax.training.workdir import (
    finished,
    read_config,
    read_results,
    write_json,
)

TOLERANCE = 0.05
FACTORS = (0.5, 1.0, 2.0)
FILE = "findings.json"
_MANY_PROBES = 10  # at most so many are looked at with other kernel widths
# Fields in which the runs of a group may differ.
_FREE = {"seed", "workdir", "dataset.data_dir", "dataset.placement"}


class Run(NamedTuple):
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


class Table(NamedTuple):
    """Numbers that belong together.

    Attributes:
        title: what they are.
        header: a name for each column.
        rows: cells, text or numbers; None where there is nothing.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str | float | None, ...]]


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


def read_run(workdir: pathlib.Path) -> Run:
    """A probed run from its folder.

    Args:
        workdir: of a run, finished or not.

    Raises:
        ValueError: it was not probed, or a file is damaged.
    """
    config = flatten(read_config(workdir).to_dict())
    seconds = read_results(workdir)["seconds"] if finished(workdir) else None
    return Run(workdir, config, read_information(workdir), seconds)


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one config with different seeds, probed equally far, together.

    Args:
        runs: any.

    Returns:
        The groups, in the order of their first runs.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        same = {name: v for name, v in run.config.items() if name not in _FREE}
        epochs = run.information["train/epoch"].tolist()
        found.setdefault(json.dumps([same, epochs], default=str), []).append(run)
    return list(found.values())


def find(
    runs: Sequence[Run], *, controls: bool = False, split: str = "train"
) -> Findings:
    """Statistics, sentences and tables of one group.

    Args:
        runs: of one group, one or more.
        controls: whether the slow controls are made too: other kernel widths, and the
            estimator on Gaussians.
        split: that the sentences are about; the tables have both.

    Returns:
        The findings.
    """
    first = runs[0].information
    sentences, tables = [], [_last_probe(runs)]
    statistics: dict[str, Any] = {"split": split, "runs": len(runs)}
    stages = first[f"{split}/sigma"].shape[1]
    sentences.append(_what_was_measured(runs, split))
    if len(first[f"{split}/epoch"]) > 1:
        made = _changes(runs, split)
        sentences += made[0]
        statistics["change_of_input_stage"] = made[1]
        if stages > 1:
            for part in (
                _convergence(runs, split),
                _markov(runs, split, controls),
                _roles(runs, split),
            ):
                sentences += part[0]
                tables.append(part[1])
                statistics |= part[2]
    sentences += _targets(runs, split)
    if controls:
        said, table, rows = _estimator(runs, split)
        sentences += said
        tables.append(table)
        statistics["estimator_bias"] = rows
    sentences += _cost(runs, split)
    return Findings(
        name_of(runs[0]),
        tuple(run.workdir.name for run in runs),
        sentences,
        tables,
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
    tables = [table._asdict() for table in findings.tables]
    write_json(workdir / FILE, _without_nan({**findings._asdict(), "tables": tables}))
    return workdir / FILE


def read_findings(workdir: pathlib.Path) -> Findings | None:
    """What `write_findings` wrote; None where there is nothing, or it is damaged."""
    try:
        found = json.loads((workdir / FILE).read_text(encoding="utf-8"))
        tables = [
            Table(own["title"], tuple(own["header"]), [tuple(r) for r in own["rows"]])
            for own in found["tables"]
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


def compare(found: Sequence[Sequence[Run]], *, split: str = "train") -> Table:
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
    found: Sequence[Sequence[Run]], *, split: str = "train"
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

    def kind(runs: Sequence[Run]) -> tuple[Any, ...]:
        network = {k: v for k, v in runs[0].config.items() if k.startswith("model.")}
        return runs[0].config["dataset.name"], json.dumps(network, default=str)

    header = ("end to end beside", "nHSIC with", "end to end", "other", "difference",
              "95 % interval")  # fmt: skip
    table = Table(f"How differently the stages change, {split}", header, [])
    sentences: list[str] = []
    baselines = [own for own in found if _is_end_to_end(own)]
    for baseline in baselines:
        for other in found:
            if other in baselines or kind(other) != kind(baseline):
                continue
            if f"{split}/sigma" not in other[0].information:
                continue
            if other[0].information[f"{split}/sigma"].shape[1] < 2:
                continue
            sentences.append(_beside(baseline, other, split, table))
    return sentences, table


def _is_end_to_end(runs: Sequence[Run]) -> bool:
    return runs[0].config["schedule.name"] == "end_to_end"


def _beside(
    baseline: Sequence[Run], other: Sequence[Run], split: str, table: Table
) -> str:
    said = []
    for name, key in _ROLES.items():
        one, two = (
            role_differentiation(
                np.stack([run.information[f"{split}/{key}"] for run in runs])
            )
            for runs in (baseline, other)
        )
        difference = bootstrap_difference(one, two)
        interval = _interval(difference.low, difference.high)
        table.rows.append(
            (
                name_of(other[0]),
                name,
                float(one.mean()),
                float(two.mean()),
                difference.mean,
                interval,
            )
        )
        verdict = (
            "in one run of a kind, so no difference is claimed"
            if math.isnan(difference.low)
            else "more different end to end"
            if difference.low > 0
            else "less different end to end"
            if difference.high < 0
            else "no difference is established, for the interval holds 0"
        )
        said.append(
            f"by nHSIC with {name} {one.mean():.2f} end to end and {two.mean():.2f} "
            f"here, a difference of {difference.mean:+.2f}".replace("-", "−")
            + (f" ({interval})" if not math.isnan(difference.low) else "")
            + f": {verdict}"
        )
    return (
        f"{name_of(other[0])} beside end to end, {len(other)} and {len(baseline)} "
        "runs: how differently the stages change (standard deviation over stages of "
        f"the change from the untrained network on) is {'; '.join(said)}."
    )


def as_text(table: Table) -> str:
    """A table in columns, for a terminal."""
    cells = [table.header, *([_cell(value) for value in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    return "\n".join([table.title, *lines])


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


def name_of(run: Run) -> str:
    """Data set, schedule and objective of a run, in words."""
    schedule = run.config["schedule.name"]
    objective = run.config["objective.name"] if schedule != "end_to_end" else ""
    return f"{run.config['dataset.name']}, {schedule}" + f", {objective}" * bool(
        objective
    )


# Sentences. Each says no more than its numbers, and with how many runs.


def _what_was_measured(runs: Sequence[Run], split: str) -> str:
    found = runs[0].information
    epochs = found[f"{split}/epoch"]
    return (
        f"{name_of(runs[0])}: {_count(len(runs), 'run')}, "
        f"{_count(len(epochs), 'probe')} from epoch {epochs[0]} to {epochs[-1]}, "
        f"{int(found[f'{split}/samples'])} pictures of the {split} split, "
        f"α = {float(found[f'{split}/alpha']):g}, kernel width by the rule "
        f"{runs[0].config['analysis.bandwidth']}"
        + ("." if runs[0].seconds is not None else "; the run is not finished.")
    )


_MEASURES = {
    "CKA": "CKA to the last probe",
    "linear CKA": "linear CKA to the last probe",
    "I(X;T)": "I(X;T)",
    "I(T;Y)": "I(T;Y)",
}


def _deviations(run: Run, split: str, measure: str, of: str) -> np.ndarray:
    keys = {
        "CKA": "cka_final",
        "linear CKA": "linear_cka_final",
        "I(X;T)": "input_stage",
        "I(T;Y)": "stage_target",
    }
    values = run.information[f"{split}/{keys[measure]}"].astype(np.float64)
    if "CKA" in measure:
        # Exactly 1 in the end, but for rounding.
        values = np.concatenate([values[:-1], np.ones_like(values[-1:])])
    return deviation(values, of=of)


def _convergence(
    runs: Sequence[Run], split: str
) -> tuple[list[str], Table, dict[str, Any]]:
    epochs = runs[0].information[f"{split}/epoch"]
    imposed = runs[0].config["schedule.name"] == "sequential"
    sentences: list[str] = []
    rows: list[tuple[str | float | None, ...]] = []
    statistics: dict[str, Any] = {}
    for measure, words in _MEASURES.items():
        orders: dict[str, Order] = {}
        for of in ("final", "change"):
            reached = np.stack(
                [
                    convergence_epochs(
                        _deviations(run, split, measure, of),
                        epochs,
                        tolerance=TOLERANCE,
                    )
                    for run in runs
                ]
            )
            order = orders[of] = convergence_order(reached)
            mean = reached.mean(axis=0)
            what = "of its last value" if of == "final" else "of its whole change"
            rows.append(
                (
                    f"{measure}, within 5 % {what}",
                    *(float(epoch) for epoch in mean),
                    order.tau,
                    _interval(order.low, order.high),
                )
            )
            statistics[f"{measure}, {of}"] = {
                "epochs": reached.tolist(),
                "tau": order.tau,
                "interval": [order.low, order.high],
            }
            if of == "final" and measure in ("CKA", "I(X;T)"):
                early = [str(k) for k in np.flatnonzero(mean == epochs[0])]
                sentences.append(
                    f"By {words} the stages stay within 5 % of their last value from "
                    f"epoch {_listed(mean)} on"
                    + (", means over the runs" if len(runs) > 1 else "")
                    + (
                        f"; {_stages(early)} so untrained, which tells nothing of "
                        "training"
                        if early
                        else ""
                    )
                    + "."
                )
        if measure in ("CKA", "I(X;T)"):
            sentences.append(_about_order(words, orders, imposed=imposed))
    gaps = np.diff(epochs)
    sentences.append(
        f"Probes are up to {_count(int(gaps.max()), 'epoch')} apart: no epoch of "
        "convergence is known better than that."
    )
    stages = tuple(f"stage {k}" for k in range(len(rows[0]) - 3))
    table = Table(
        f"Epoch from which a stage stays near its end, {split}",
        ("by", *stages, "Kendall’s τ", "95 % interval"),
        rows,
    )
    return sentences, table, {"convergence": statistics}


def verdict(order: Order) -> str:
    """What an interval of τ says of the order: bottom to top, top to bottom, or "".

    Args:
        order: of `convergence_order`.
    """
    if order.low > 0:
        return "bottom to top"
    return "top to bottom" if order.high < 0 else ""


def _stages(numbers: Sequence[str]) -> str:
    if len(numbers) == 1:
        return f"stage {numbers[0]} is"
    return f"stages {', '.join(numbers[:-1])} and {numbers[-1]} are"


def _about_order(words: str, orders: dict[str, Order], *, imposed: bool) -> str:
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


def _changes(runs: Sequence[Run], split: str) -> tuple[list[str], list[Any]]:
    values = np.stack([run.information[f"{split}/input_stage"] for run in runs])
    change = (values[:, -1] - values[:, 0]).astype(np.float64)  # (r, s)
    found: list[Any] = []
    rises: dict[str, list[str]] = {"falls": [], "rises": []}
    for stage, own in enumerate(change.T):
        low, high = bootstrap_interval(own)
        found.append({"mean": float(own.mean()), "interval": [low, high]})
        if low > 0 or high < 0:
            rises["falls" if high < 0 else "rises"].append(
                f"stage {stage} by {abs(own.mean()):.2f} ({_interval(low, high)})"
            )
    said = (
        "From the untrained network to the last probe I(X;T) changes by "
        f"{_listed(change.mean(axis=0), '{:+.2f}')} bits, stage by stage"
    )
    if len(runs) < 2:
        return [f"{said}, in one run: no interval, so nothing is claimed."], found
    claims = [f"it {verb} in {' and '.join(own)}" for verb, own in rises.items() if own]
    ending = "; ".join(claims) or "every interval over the runs holds 0"
    return [f"{said}; {ending}."], found


def _markov(
    runs: Sequence[Run], split: str, controls: bool
) -> tuple[list[str], Table, dict[str, Any]]:
    names = ["Y", "X"]
    names += [f"T{k}" for k in range(runs[0].information[f"{split}/sigma"].shape[1])]
    whole = np.stack([chain(run.information, split) for run in runs])
    found: dict[str, Violations] = {
        "all probes": data_processing_violations(whole),
        "untrained network": data_processing_violations(whole[:, 0]),
        "last probe": data_processing_violations(whole[:, -1]),
    }
    overall = found["all probes"]
    sentences = [
        "I(A;C) ≤ min(I(A;B), I(B;C)) along the chain Y → X → T0 → … is violated by "
        f"more than 0.01 bits in {overall.violated} of {overall.triples} triples "
        f"({_share(overall):.0f} %)"
        + (
            f", by {overall.mean:.2f} bits in the mean and {overall.largest:.2f} at "
            f"most, {' → '.join(names[i] for i in overall.worst)}; in the untrained "
            f"network in {_share(found['untrained network']):.0f} %."
            if overall.violated
            else "."
        )
    ]
    if controls and all(probe_files(run.workdir) for run in runs):
        by_width = _at_widths(runs, split)
        found |= {f"kernels × {factor:g}": v for factor, v in by_width.items()}
        listed = ", ".join(
            f"{_share(own):.0f} % by {own.mean:.2f} bits (× {factor:g})"
            for factor, own in by_width.items()
        )
        moves = _moves([_share(own) for own in by_width.values()], least=5) or _moves(
            [own.mean for own in by_width.values()], least=0.05
        )
        sentences.append(
            f"With other kernel widths they are {listed}: "
            + (
                "they move with the width, so they are the kernel’s at least as much "
                "as the network’s."
                if moves
                else "they hardly move with the width."
            )
        )
    rows: list[tuple[str | float | None, ...]] = [
        (
            name,
            own.triples,
            own.violated,
            _share(own),
            own.mean,
            own.largest,
            " → ".join(names[i] for i in own.worst),
        )
        for name, own in found.items()
    ]
    table = Table(
        f"Violations of the data-processing inequality, {split}",
        ("at", "triples", "violated", "%", "mean bits", "largest excess", "where"),
        rows,
    )
    return (
        sentences,
        table,
        {"data_processing": {k: v._asdict() for k, v in found.items()}},
    )


_ROLES = {"X": "nhsic_input", "Y": "nhsic_target"}


def _roles(runs: Sequence[Run], split: str) -> tuple[list[str], Table, dict[str, Any]]:
    rows: list[tuple[str | float | None, ...]] = []
    statistics: dict[str, Any] = {}
    said = []
    for name, key in _ROLES.items():
        values = np.stack([run.information[f"{split}/{key}"] for run in runs])
        change = (values[:, -1] - values[:, 0]).astype(np.float64)  # (r, s)
        spread = role_differentiation(values)
        low, high = bootstrap_interval(spread)
        signs = [bootstrap_interval(own) for own in change.T]
        rising = [str(k) for k, (start, _) in enumerate(signs) if start > 0]
        falling = [str(k) for k, (_, end) in enumerate(signs) if end < 0]
        rows.append(
            (
                name,
                *(float(own) for own in change.mean(axis=0)),
                float(spread.mean()),
                _interval(low, high),
            )
        )
        statistics[f"nHSIC {name}"] = {
            "change": change.tolist(),
            "differentiation": spread.tolist(),
            "interval": [low, high],
        }
        moved = [
            f"{verb} in {'stage' if len(own) == 1 else 'stages'} {', '.join(own)}"
            for verb, own in (("rises", rising), ("falls", falling))
            if own
        ]
        said.append(
            f"with {name} by {_listed(change.mean(axis=0), '{:+.2f}')}"
            + (
                f", and {' and '.join(moved)} (intervals over the runs)"
                if moved
                else ""
            )
        )
    stages = tuple(f"stage {k}" for k in range(len(rows[0]) - 3))
    table = Table(
        f"Change of the normalised HSIC, untrained to last probe, {split}",
        ("with", *stages, "differentiation", "95 % interval"),
        rows,
    )
    sentence = f"The normalised HSIC changes {'; '.join(said)}, stage by stage."
    return [sentence], table, {"roles": statistics}


def _moves(values: Sequence[float], *, least: float) -> bool:
    """Whether values differ twofold, and by more than what is nothing."""
    return max(values) > 2 * min(values) and max(values) - min(values) > least


def _at_widths(runs: Sequence[Run], split: str) -> dict[float, Violations]:
    found: dict[float, list[np.ndarray]] = {factor: [] for factor in FACTORS}
    for run in runs:
        files = probe_files(run.workdir)
        chosen = np.unique(np.linspace(0, len(files) - 1, _MANY_PROBES).round())
        for index in chosen.astype(int):
            target, nodes = read_grams(files[index], split)
            alpha = float(run.information[f"{split}/alpha"])
            for factor, own in found.items():
                own.append(chain_at_width(target, nodes, factor=factor, alpha=alpha))
    return {
        factor: data_processing_violations(np.stack(own))
        for factor, own in found.items()
    }


def _share(violations: Violations) -> float:
    return 100 * violations.violated / violations.triples


def _targets(runs: Sequence[Run], split: str) -> list[str]:
    def last(key: str, probe: int = -1) -> str:
        return _mean(
            np.stack([run.information[f"{split}/{key}"][probe, -1] for run in runs])
        )

    entropy = float(runs[0].information[f"{split}/target_entropy"])
    return [
        f"In the last stage I(T;Y) is {last('stage_target')} bits of H(Y) = "
        f"{entropy:.2f}; {last('stage_target_shuffled')} with shuffled targets, which "
        f"is the estimator’s, and {last('stage_target', 0)} in the untrained network."
    ]


def _estimator(
    runs: Sequence[Run], split: str
) -> tuple[list[str], Table, list[dict[str, float]]]:
    count = int(runs[0].information[f"{split}/samples"])
    rows = estimator_bias(
        alpha=float(runs[0].information[f"{split}/alpha"]),
        bandwidth=runs[0].config["analysis.bandwidth"],
        samples=sorted({max(2, count // 2), count}),
    )
    said = []
    for truth in (0.0, 2.0):
        own = [r for r in rows if r["samples"] == count and r["truth"] == truth]
        low, high = (f(r["estimate"] for r in own) for f in (min, max))
        said.append(f"{low:.2f} to {high:.2f} bits where {truth:g} is true")
    names = ("samples", "dimension", "factor", "truth", "estimate", "bias")
    table = Table(
        "The estimator on Gaussians whose information is known, in bits",
        names,
        [tuple(row[name] for name in names) for row in rows],
    )
    sentence = (
        f"The estimator itself, on Gaussians of {count} samples, 1 to 64 dimensions "
        f"and kernels × 0.5 to × 2, gives {' and '.join(said)}: values of different "
        "dimensions or widths cannot be compared, only courses of one."
    )
    halves = [
        np.mean([abs(row["bias"]) for row in rows if row["samples"] == size])
        for size in (min(row["samples"] for row in rows), count)
    ]
    widths = ", ".join(
        f"{np.mean([r['bias'] for r in rows if r['factor'] == factor]):+.2f} "
        f"(× {factor:g})"
        for factor in sorted({row["factor"] for row in rows})
    ).replace("-", "−")
    sentence += (
        f" Its mean error is {halves[0]:.2f} bits with half as many samples and "
        f"{halves[1]:.2f} with all; its mean bias by kernel width {widths}."
    )
    return [sentence], table, rows


def _cost(runs: Sequence[Run], split: str) -> list[str]:
    if any(run.seconds is None for run in runs):
        return []
    probes = sum(run.information[f"{split}/seconds"].sum() for run in runs)
    training = sum(run.seconds for run in runs if run.seconds is not None)
    return [
        f"The probes took {probes:.1f} s beside {training:.1f} s of training, "
        f"{100 * probes / (probes + training):.1f} % of both."
    ]


# Tables

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


def _last_probe(runs: Sequence[Run]) -> Table:
    rows = [
        (split, when, *row)
        for split in SPLITS
        if f"{split}/sigma" in runs[0].information
        for when, probe in (("untrained", 0), ("last", -1))
        for row in _stage_rows(runs, split, probe)
    ]
    if len(runs[0].information["train/epoch"]) == 1:
        rows = [row for row in rows if row[1] == "last"]
    header = ("split", "probe", "stage", *_SHOWN.values())
    return Table("The untrained network and the last probe", header, rows)


def _stage_rows(
    runs: Sequence[Run], split: str, probe: int
) -> list[tuple[str | float | None, ...]]:
    values = {
        key: np.stack([run.information[f"{split}/{key}"][probe] for run in runs])
        for key in _SHOWN
    }
    stages = values["entropy"].shape[1]
    return [
        (stage, *(_mean(own[:, stage]) for own in values.values()))
        for stage in range(stages)
    ]


def _mean(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _listed(values: np.ndarray, form: str = "{:.4g}") -> str:
    words = [form.format(value).replace("-", "−") for value in values]
    return words[0] if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"


def _interval(low: float, high: float) -> str:
    if math.isnan(low):
        return "–"
    return f"{low:.2f} to {high:.2f}".replace("-", "−")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _without_nan(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(own) for own in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
