"""What probed runs show, in words that their statistics support, and tables.

Runs that differ in their seed only are one group; what is said of a group's order or
change has an interval over its runs, and of a single run it is not called a finding.
"""

import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dib_jax.analysis import recording
from dib_jax.analysis import statistics as stats
from dib_jax.analysis.runs import is_end_to_end, read_json
from dib_jax.settings import flatten
from dib_jax.tasks.exhibits import Cell, Table
from dib_jax.training.workdir import finished, read_results, write_json

TOLERANCE = 0.05
FACTORS = (0.5, 1.0, 2.0)
FILE = "findings.json"
_MANY_PROBES = 10  # at most so many are looked at with other kernel widths
# Fields in which the runs of a group may differ.
_FREE = {"seed", "workdir", "dataset.data_dir", "dataset.placement"}
# Near which end of a stage: key, words.
_ENDS = {"final": "of its last value", "change": "of its whole change"}
_ROLES = {"X": "nhsic_input", "Y": "nhsic_target"}
# What is measured of convergence: key, words for sentences, None where only the table
# has it.
_CONVERGENCE = {
    "CKA": ("cka_final", "CKA to the last probe"),
    "linear CKA": ("linear_cka_final", None),
    "I(X;T)": ("input_stage", "I(X;T)"),
    "I(T;Y)": ("stage_target", None),
}
# What tables call the quantities of a stage.
COLUMNS = {
    "entropy": "H(T)",
    "input_stage": "I(X;T)",
    "previous_stage": "I(before;T)",
    "stage_target": "I(T;Y)",
    "stage_target_shuffled": "shuffled Y",
    "conditional_target": "I(T;Y|before)",
    "nhsic_input": "nHSIC X",
    "nhsic_target": "nHSIC Y",
    "effective_rank": "effective rank",
    "cka_final": "CKA to last",
    "linear_cka_final": "linear CKA to last",
}
_SHOWN = [
    key for key in COLUMNS if key != "previous_stage" and not key.endswith("final")
]
_HEADER = ("stage", *(COLUMNS[key] for key in _SHOWN))


class Probed(NamedTuple):
    """A probed run.

    Attributes:
        workdir: its folder.
        config: its config, flat, by dotted field.
        information: of `read_information`.
        seconds: of its training; None while it runs.
        unused: sections of the config that its algorithm had no use for, once it has
            finished.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    information: dict[str, np.ndarray]
    seconds: float | None
    unused: tuple[str, ...] = ()


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


Group = Sequence[Probed]
_Row = tuple[Cell, ...]
# What one question adds to the findings: sentences, tables and statistics.
_Answer = Iterator[str | Table | dict[str, Any]]


def read_probed(workdir: pathlib.Path) -> Probed:
    """A probed run from its folder.

    Args:
        workdir: of a run, finished or not.

    Raises:
        ValueError: it was not probed, or a file is damaged.
    """
    config = flatten(read_json(workdir / "config.json"))
    results = read_results(workdir) if finished(workdir) else {}
    information = recording.read_information(workdir)
    unused = tuple(results.get("unused", ()))
    return Probed(workdir, config, information, results.get("seconds"), unused)


def groups(runs: Group) -> list[list[Probed]]:
    """Runs of one config with different seeds, probed equally far, together.

    Args:
        runs: any.

    Returns:
        The groups, in the order of their first runs.

    Raises:
        ValueError: two runs of a group have one seed.
    """
    found: dict[str, dict[Any, Probed]] = {}
    for run in runs:
        same = {name: v for name, v in run.config.items() if name not in _FREE}
        epochs = run.information["train/epoch"].tolist()
        group = found.setdefault(json.dumps([same, epochs], default=str), {})
        # One seed is one sample: counted twice it makes every interval too narrow.
        first = group.setdefault(run.config["seed"], run)
        if first is not run:
            raise ValueError(
                f"{first.workdir} and {run.workdir} are runs of one config and of seed "
                f"{run.config['seed']}; give one run of each seed"
            )
    return [list(group.values()) for group in found.values()]


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
    answers = [_what_was_measured(runs, split)]
    if probes > 1:
        answers.append(_changes(runs, split))
        if stages > 1:
            answers.append(_convergence(runs, split))
            answers.append(_markov(runs, split, controls))
            answers.append(_roles(runs, split))
    answers.append(_targets(runs, split))
    if controls:
        answers.append(_estimator(runs, split))
    found = Findings(name_of(runs[0]), tuple(run.workdir.name for run in runs), [], [],
                     {"split": split, "runs": len(runs)})  # fmt: skip
    for part in itertools.chain(*answers, _cost(runs, split)):
        if isinstance(part, str):
            found.sentences.append(part)
        elif isinstance(part, Table):
            found.tables.append(part)
        else:
            found.statistics.update(part)
    return found


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
    facts = {**findings._asdict(), "tables": tables}
    text = json.dumps(facts, default=lambda number: number.item())
    # JSON has no numbers that are not finite: they become null.
    write_json(workdir / FILE, json.loads(text, parse_constant=lambda _: None))
    return workdir / FILE


def read_findings(workdir: pathlib.Path) -> Findings | None:
    """What `write_findings` wrote; None where there is nothing, or it is damaged."""
    try:
        found = read_json(workdir / FILE)
        tables = [
            Table(t["title"], tuple(t["header"]), [tuple(row) for row in t["rows"]])
            for t in found["tables"]
        ]
        return Findings(**found | {"runs": tuple(found["runs"]), "tables": tables})
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
    title = f"Last probe of each group, {split}"
    return Table(title, ("runs of", "n", *_HEADER), rows)


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
        sigma = runs[0].information.get(f"{split}/sigma", np.empty((0, 0)))
        return sigma.shape[1] > 1

    pairs = [
        _beside(baseline, other, split)
        for baseline, other in itertools.product(found, repeat=2)
        if _is_end_to_end(baseline[0]) and not _is_end_to_end(other[0])
        if kind(other) == kind(baseline) and has_roles(other)
    ]
    rows = [row for _, of_pair in pairs for row in of_pair]
    header = ("end to end beside", "nHSIC with", "end to end", "other", "difference",
              "95 % interval")  # fmt: skip
    table = Table(f"How differently the stages change, {split}", header, rows)
    return [sentence for sentence, _ in pairs], table


def _is_end_to_end(run: Probed) -> bool:
    return is_end_to_end(run.config["algorithm.name"])


def _beside(baseline: Group, other: Group, split: str) -> tuple[str, list[_Row]]:
    """Roles in one group beside those end to end: a sentence and rows of the table."""
    name = name_of(other[0])
    said: list[str] = []
    rows: list[_Row] = []
    for variable, key in _ROLES.items():
        one, two = (_differentiation(runs, split, key) for runs in (baseline, other))
        apart = stats.difference_interval(one, two)
        means = float(one.mean()), float(two.mean())
        interval = _interval(*apart[1:])
        rows.append((name, variable, *means, apart.mean, interval))
        words = ("more different end to end", "less different end to end")
        claim = f" ({interval}): {_verdict(apart, *words, 'difference')}"
        if math.isnan(apart.low):
            claim = ": in one run of a kind, so no difference is claimed"
        said.append(
            f"by nHSIC with {variable} {means[0]:.2f} end to end and {means[1]:.2f} "
            f"here, a difference of {_number(apart.mean)}{claim}"
        )
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
    """Data set, algorithm and, where it had one, objective of a run, in words."""
    words = [run.config["dataset.name"], run.config["algorithm.name"]]
    if not _is_end_to_end(run) and "objective" not in run.unused:
        words.append(run.config["objective.name"])
    return ", ".join(filter(None, words))


# Sentences. Each says no more than its numbers, and with how many runs.


def _values(runs: Group, split: str, key: str) -> np.ndarray:
    """A quantity of each run at each probe, (r, p, …)."""
    return np.stack([run.information[f"{split}/{key}"] for run in runs]).astype(float)


def _what_was_measured(runs: Group, split: str) -> _Answer:
    found = runs[0].information
    epochs = found[f"{split}/epoch"]
    yield (
        f"{name_of(runs[0])}: {_count(len(runs), 'run')}, "
        f"{_count(len(epochs), 'probe')} from epoch {epochs[0]} to {epochs[-1]}, "
        f"{int(found[f'{split}/samples'])} samples of the {split} split, "
        f"α = {float(found[f'{split}/alpha']):g}, kernel width by the rule "
        f"{runs[0].config['analysis.bandwidth']}"
        + ("." if runs[0].seconds is not None else "; the run is not finished.")
    )
    yield _last_probe(runs)


def _convergence(runs: Group, split: str) -> _Answer:
    epochs = runs[0].information[f"{split}/epoch"]
    trained = runs[0].information[f"{split}/trained"] > 0
    imposed = ""
    if np.any(trained[:, :-1] & ~trained[:, 1:]):  # one is done, the next not begun
        imposed = "; stages that train one after the other have this order imposed"
    rows: list[_Row] = []
    statistics: dict[str, Any] = {}
    for measure, (key, words) in _CONVERGENCE.items():
        values = _values(runs, split, key)
        if "CKA" in measure:
            values[:, -1] = 1  # exactly 1 in the end, but for rounding
        orders = {}
        for of, what in _ENDS.items():
            away = stats.deviation(values, of=of)
            reached = stats.convergence_epochs(away, epochs, tolerance=TOLERANCE)
            order = orders[of] = stats.convergence_order(reached)
            ends = _interval(*order[1:])
            name = f"{measure}, within 5 % {what}"
            rows.append((name, *reached.mean(axis=0), order.mean, ends))
            found = {"epochs": reached.tolist(), "tau": order.mean}
            statistics[f"{measure}, {of}"] = {**found, "interval": [*order[1:]]}
            if words and of == "final":
                yield _when(words, reached, _last_untrained(epochs, trained))
        if words:
            yield f"{_about_order(words, **orders, runs=len(runs))}{imposed}."
    gap = _count(int(np.diff(epochs).max()), "epoch")
    known = "no epoch of convergence is known better than that"
    yield f"Probes are up to {gap} apart: {known}."
    title = f"Epoch from which a stage stays near its end, {split}"
    yield _by_stage(title, "by", rows, "Kendall’s τ")
    yield {"convergence": statistics}


def _last_untrained(epochs: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Of each stage the last epoch of a probe (s,) at which it had not trained."""
    before = np.where(trained.any(axis=0), trained.argmax(axis=0), len(epochs)) - 1
    return np.where(before < 0, -1, epochs[before])


def _when(words: str, reached: np.ndarray, untrained: np.ndarray) -> str:
    mean = reached.mean(axis=0)
    said = (
        f"By {words} the stages stay within 5 % of their last value from epoch "
        f"{_listed(mean)} on{', means over the runs' * (len(reached) > 1)}"
    )
    early = np.flatnonzero(mean <= untrained)
    if len(early):
        said += f"; {_stages(early)} {'is' if len(early) == 1 else 'are'} so untrained"
        said += ", which tells nothing of training"
    return f"{said}."


def _verdict(found: stats.Estimate, above: str, below: str, what: str) -> str:
    nothing = f"no {what} is established, for the interval holds 0"
    return {1: above, -1: below}.get(found.sign, nothing)


def _about_order(
    words: str, final: stats.Estimate, change: stats.Estimate, *, runs: int
) -> str:
    said = f"Kendall’s τ between depth and that epoch, by {words}, is {final.mean:.2f}"
    if math.isnan(final.low):
        return f"{said} in one run, without an interval: no order is claimed"
    verdict = _verdict(final, "bottom to top", "top to bottom", "order")
    interval = f"95 % interval {_interval(*final[1:])} over {runs} runs"
    said += f" ({interval}): {verdict}"
    if change.sign != final.sign:
        said += (
            f"; by 5 % of the whole change it is {change.mean:.2f} "
            f"({_interval(*change[1:])}), another answer, so it depends on what near "
            "means"
        )
    return said


def _change(runs: Group, split: str, key: str) -> np.ndarray:
    """From the untrained network to the last probe, (r, s)."""
    values = _values(runs, split, key)
    return values[:, -1] - values[:, 0]


def _differentiation(runs: Group, split: str, key: str) -> np.ndarray:
    return stats.role_differentiation(_values(runs, split, key))


def _changes(runs: Group, split: str) -> _Answer:
    mean, low, high = stats.mean_interval(_change(runs, split, "input_stage"))
    ends = [*zip(low, high, strict=True)]
    changes = [
        f"stage {k} by {abs(change):.2f} ({_interval(*interval)})"
        for k, (change, interval) in enumerate(zip(mean, ends, strict=True))
    ]
    claims = [
        f"it {verb} in {' and '.join(changes[k] for k in np.flatnonzero(agrees))}"
        for verb, agrees in (("falls", high < 0), ("rises", low > 0))
        if agrees.any()
    ]
    claimed = f"; {'; '.join(claims) or 'every interval over the runs holds 0'}"
    if len(runs) < 2:
        claimed = ", in one run: no interval, so nothing is claimed"
    yield (
        "From the untrained network to the last probe I(X;T) changes by "
        f"{_listed(mean, '+.2f')} bits, stage by stage{claimed}."
    )
    found = [{"mean": m, "interval": ends[k]} for k, m in enumerate(mean)]
    yield {"change_of_input_stage": found}


def _markov(runs: Group, split: str, controls: bool) -> _Answer:
    whole = np.stack([stats.chain(run.information, split) for run in runs])
    names = stats.chain_names(whole.shape[-1])
    found = {
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
        f"({overall.share:.0f} %)"
    )
    if overall.violated:
        said += (
            f", by {overall.mean:.2f} bits in the mean and {overall.largest:.2f} at "
            f"most, {where(overall)}; in the untrained network in "
            f"{found['untrained network'].share:.0f} %"
        )
    yield f"{said}."
    if controls and all(recording.probe_files(run.workdir) for run in runs):
        by_width = _at_widths(runs, split)
        found |= {f"kernels × {factor:g}": v for factor, v in by_width.items()}
        yield _about_widths(by_width)
    title = f"Violations of the data-processing inequality, {split}"
    header = ("at", "triples", "violated", "%", "mean bits", "largest excess", "where")
    rows = [
        (name, v.triples, v.violated, v.share, v.mean, v.largest, where(v))
        for name, v in found.items()
    ]
    yield Table(title, header, rows)
    yield {"data_processing": {name: v._asdict() for name, v in found.items()}}


def _about_widths(found: dict[float, stats.Violations]) -> str:
    listed = ", ".join(
        f"{v.share:.0f} % by {v.mean:.2f} bits (× {factor:g})"
        for factor, v in found.items()
    )
    shares, means = zip(*((v.share, v.mean) for v in found.values()), strict=True)
    ending = "they hardly move with the width."
    if _moves(shares, least=5) or _moves(means, least=0.05):
        ending = "they move with the width, so they are the kernel’s at least as much "
        ending += "as the network’s."
    return f"With other kernel widths they are {listed}: {ending}"


def _moves(values: Sequence[float], *, least: float) -> bool:
    """Whether values differ twofold, and by more than what is nothing."""
    return max(values) > 2 * min(values) and max(values) - min(values) > least


def _at_widths(runs: Group, split: str) -> dict[float, stats.Violations]:
    alpha = float(runs[0].information[f"{split}/alpha"])
    chains: dict[float, list[Any]] = {factor: [] for factor in FACTORS}
    for run in runs:
        files = recording.probe_files(run.workdir)
        for index in stats.chosen(len(files), _MANY_PROBES):
            grams = recording.read_grams(files[index], split)
            for factor, found in chains.items():
                found.append(stats.chain_at_width(*grams, factor=factor, alpha=alpha))
    return {
        factor: stats.data_processing_violations(np.stack(found))
        for factor, found in chains.items()
    }


def _roles(runs: Group, split: str) -> _Answer:
    rows: list[_Row] = []
    statistics: dict[str, Any] = {}
    said = []
    for name, key in _ROLES.items():
        change = _change(runs, split, key)
        mean, low, high = stats.mean_interval(change)
        each = _differentiation(runs, split, key)
        spread, *ends = stats.mean_interval(each)
        ends = [np.maximum(end, 0) for end in ends]  # it is a standard deviation
        rows.append((name, *mean, float(spread), _interval(*ends)))
        found = {"change": change.tolist(), "differentiation": each.tolist()}
        statistics[f"nHSIC {name}"] = {**found, "interval": ends}
        moved = [
            f"{verb} in {_stages(np.flatnonzero(agrees), last=', ')}"
            for verb, agrees in (("rises", low > 0), ("falls", high < 0))
            if agrees.any()
        ]
        said.append(f"with {name} by {_listed(mean, '+.2f')}")
        if moved:
            said[-1] += f", and {' and '.join(moved)} (intervals over the runs)"
    yield f"The normalised HSIC changes {'; '.join(said)}, stage by stage."
    title = f"Change of the normalised HSIC, untrained to last probe, {split}"
    yield _by_stage(title, "with", rows, "differentiation")
    yield {"roles": statistics}


def _targets(runs: Group, split: str) -> _Answer:
    def at(key: str, probe: int = -1) -> str:
        return _mean(_values(runs, split, key)[:, probe, -1])

    entropy = float(runs[0].information[f"{split}/target_entropy"])
    yield (
        f"In the last stage I(T;Y) is {at('stage_target')} bits of H(Y) = "
        f"{entropy:.2f}; {at('stage_target_shuffled')} with shuffled targets, which "
        f"is the estimator’s, and {at('stage_target', 0)} in the untrained network."
    )


def _estimator(runs: Group, split: str) -> _Answer:
    count = int(runs[0].information[f"{split}/samples"])
    samples = sorted({max(2, count // 2), count})
    alpha = float(runs[0].information[f"{split}/alpha"])
    width = runs[0].config["analysis.bandwidth"]
    rows = stats.estimator_bias(alpha=alpha, bandwidth=width, samples=samples)

    def of(name: str, **wanted: float) -> np.ndarray:
        return np.array([row[name] for row in rows if wanted.items() <= row.items()])

    estimates = {truth: of("estimate", samples=count, truth=truth) for truth in (0, 2)}
    ranges = " and ".join(
        f"{found.min():.2f} to {found.max():.2f} bits where {truth} is true"
        for truth, found in estimates.items()
    )
    errors = [np.abs(of("bias", samples=n)).mean() for n in (samples[0], count)]
    biases = [_number(of("bias", factor=factor).mean()) for factor in FACTORS]
    widths = zip(biases, FACTORS, strict=True)
    listed = ", ".join(f"{bias} (× {factor:g})" for bias, factor in widths)
    yield (
        f"The estimator itself, on Gaussians of {count} samples, 1 to 64 dimensions "
        f"and kernels × 0.5 to × 2, gives {ranges}: values of different "
        "dimensions or widths cannot be compared, only courses of one. Its mean error "
        f"is {errors[0]:.2f} bits with half as many samples and {errors[1]:.2f} with "
        f"all; its mean bias by kernel width {listed}."
    )
    title = "The estimator on Gaussians whose information is known, in bits"
    yield Table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
    yield {"estimator_bias": rows}


def _cost(runs: Group, split: str) -> _Answer:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if len(seconds) == len(runs):
        probes, training = _values(runs, split, "seconds").sum(), sum(seconds)
        yield (
            f"The probes took {probes:.1f} s beside {training:.1f} s of training, "
            f"{100 * probes / (probes + training):.1f} % of both."
        )


# Tables


def _last_probe(runs: Group) -> Table:
    several = len(runs[0].information["train/epoch"]) > 1
    rows = [
        (split, when, *row)
        for split in recording.SPLITS
        if f"{split}/sigma" in runs[0].information
        for when, probe in ([("untrained", 0)] * several + [("last", -1)])
        for row in _stage_rows(runs, split, probe)
    ]
    title = "The untrained network and the last probe"
    return Table(title, ("split", "probe", *_HEADER), rows)


def _stage_rows(runs: Group, split: str, probe: int) -> list[_Row]:
    values = [_values(runs, split, key)[:, probe] for key in _SHOWN]
    stages = values[0].shape[1]
    return [(k, *(_mean(each[:, k]) for each in values)) for k in range(stages)]


def _by_stage(title: str, first: str, rows: list[_Row], statistic: str) -> Table:
    """A table with a column for each stage, and a statistic with its interval."""
    stages = [f"stage {k}" for k in range(len(rows[0]) - 3)]
    return Table(title, (first, *stages, statistic, "95 % interval"), rows)


# Words


def _mean(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _joined(words: Sequence[str], last: str = " and ") -> str:
    return last.join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _number(value: float | np.ndarray, form: str = "+.2f") -> str:
    return f"{value:{form}}".replace("-", "−")


def _listed(values: Iterable[float], form: str = ".4g") -> str:
    return _joined([_number(value, form) for value in values])


def _stages(numbers: np.ndarray, *, last: str = " and ") -> str:
    """The name of one stage, or the names of several."""
    return f"stage{'s' * (len(numbers) > 1)} {_joined([*map(str, numbers)], last)}"


def _interval(low: float | np.ndarray, high: float | np.ndarray) -> str:
    if np.isnan(low):
        return "–"
    return _number(low, ".2f") + " to " + _number(high, ".2f")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
