"""What exits bring: accuracy against work and time, measured on a finished run.

The threshold τ is chosen on the validation split, and what it brings is read off the
test split. Work is the compiler's count; time is that of a network whose batches are
compacted (`dib_jax.algorithms.exits`).
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.algorithms import Batch, Network
from dib_jax.algorithms import exits as rules
from dib_jax.analysis.statistics import calibration_error
from dib_jax.data import Split
from dib_jax.training import evaluation
from dib_jax.training.compilation import compiler_figures, lower_step
from dib_jax.training.experiment import Experiment
from dib_jax.training.records import LABEL
from dib_jax.training.storage import as_stored, chain, passed

FILE = "exits.json"
_COUNTED = 256  # samples in the programs whose operations are counted
_REPEATS = 9  # of every timing, of which the shortest counts
_TIMED = 8  # thresholds along the curve whose time is measured
_TIMED_SAMPLES = 2_000  # of the test split, at most, that time is measured on


class Goal(NamedTuple):
    """What τ is chosen for.

    Attributes:
        loss: by how much the accuracy on the validation split may be below the best
            one, 0..1.
        cost: FLOPs of the mean sample in units of the same network end to end; None to
            go by `loss`.
        tau: the threshold itself; None to choose one.
    """

    loss: float = 0.005
    cost: float | None = None
    tau: float | None = None


class Seen(NamedTuple):
    """A split at all exits of a network.

    Attributes:
        sure: by rule, (k, n).
        right: bool (k, n), whether each exit is right.
        classes: int (k, n), what each says.
    """

    sure: dict[str, np.ndarray]
    right: np.ndarray
    classes: np.ndarray


def available(experiment: Experiment, network: Network) -> tuple[str, ...]:
    """The rules that a network can be used with.

    Args:
        experiment: whose it is.
        network: a trained one.

    Raises:
        ValueError: it cannot be cut, or the task does not tell classes.
    """
    pieces = experiment.algorithm.pieces
    rules.right_of(experiment.task)
    if len(pieces) < 2:
        raise ValueError(
            f"exits: {experiment.about.get('algorithm')!r} gives "
            f"{len(pieces) or 'no'} exit(s) to leave at; train by an algorithm with "
            "several heads, such as algorithm.name=cascade, sequential or parallel"
        )
    inputs = experiment.example().inputs
    at = jax.eval_shape(pieces[0], network, inputs)
    return tuple(
        rule
        for rule in rules.RULES
        if rule != "commitment" or at.commitment is not None
    )


def check_rule(rule: str, allowed: Sequence[str]) -> None:
    """Refuse a rule that a network cannot be used with.

    Args:
        rule: its name.
        allowed: of `available`.

    Raises:
        ValueError: it cannot.
    """
    rules.check_rule(rule)
    if rule not in allowed:
        raise ValueError(
            "exits: got the rule 'commitment', but the network has no commitment "
            f"layers; use {' or '.join(allowed)}, or train it by algorithm.name=cascade"
        )


def look(
    experiment: Experiment, network: Network, split: Split, names: Sequence[str]
) -> Seen:
    """A whole split at all exits, no sample leaving.

    Args:
        experiment: whose network it is.
        network: a trained one.
        split: with its targets.
        names: of the rules.
    """
    pieces = experiment.algorithm.pieces

    def at_all(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        x, made = batch.inputs, []
        for piece in pieces:
            at = piece(network, x)
            made.append(at.outputs)
            if piece is not pieces[-1]:
                made += [rules.sureness(name, at) for name in names]
            x = at.carried
        return tuple(made)

    data = evaluation.place(experiment, split)
    samples = evaluation.contents(experiment, data.samples)
    run = evaluation.predictor(experiment, at_all)
    found = [np.asarray(x) for x in run(network, data.common, samples)]
    targets = experiment.task.targets(data.samples)
    is_right = rules.right_of(experiment.task)
    each = 1 + len(names)
    last = np.ones(len(found[-1]))
    outputs = found[::each]
    return Seen(
        {
            name: np.stack([*found[1 + place :: each], last])
            for place, name in enumerate(names)
        },
        np.stack([np.asarray(is_right(jnp.asarray(x), targets)) for x in outputs]),
        np.stack([x.argmax(axis=-1) for x in outputs]),
    )


# Work ---------------------------------------------------------------------------------


def counted(function: Any, *arguments: Any) -> float:
    """Floating point operations of a function, by the compiler's count.

    Args:
        function: of arrays.
        *arguments: these, or what `jax.eval_shape` gives for them.

    Raises:
        ValueError: the backend does not count.
    """
    flops = compiler_figures(jax.jit(function).lower(*arguments).compile())["flops"]
    if flops is None:
        raise ValueError("exits: this backend does not count operations; use a CPU")
    return float(flops)


def _rows(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((_COUNTED, *x.shape[1:]), x.dtype), tree
    )


def inference_flops(experiment: Experiment, network: Network) -> list[float]:
    """FLOPs of one sample in each piece of a network.

    Args:
        experiment: whose it is.
        network: a trained one, or its shapes.
    """
    x, found = _rows(experiment.example().inputs), []
    for piece in experiment.algorithm.pieces:
        found.append(counted(piece, network, x) / _COUNTED)
        x = jax.eval_shape(piece, network, x).carried
    return found


def train_flops(
    experiment: Experiment,
    network: Network,
    entries: Sequence[Mapping[str, Any]],
    steps: Mapping[int, int],
    pieces: Sequence[float],
) -> float:
    """FLOPs of a whole training: updates, frozen parts, selections of samples.

    What frozen parts make of a phase's samples counts for each copy that is kept; where
    none is, it is within the step. A selection counts as one pass of the samples of
    every earlier phase through the piece that it trained. Validation does not count.

    Args:
        experiment: the experiment.
        network: what it has trained.
        entries: of results.json, one for each exit.
        steps: updates of each exit's phase.
        pieces: FLOPs of a sample in each piece of the network.
    """
    flops = {entry[LABEL]: entry["flops"] for entry in entries}
    rows: dict[bool, list[float]] = {True: [], False: []}
    total = 0.0
    example = _rows(experiment.example())
    for index, phase in enumerate(experiment.phases):
        number = phase.exits[-1]
        total += steps[number] * (flops[number] or 0)
        seen = steps[number] / phase.epochs * experiment.batch_size
        before = rows[phase.predicts]
        if phase.enter:
            total += sum(n * each for n, each in zip(before, pieces, strict=False))
        functions = chain(experiment, index)
        kept = _times_kept(experiment, phase.epochs)
        if functions and kept:

            def given(
                network: Network, batch: Batch, functions: Any = functions
            ) -> Any:
                return passed(functions, network, batch).given

            total += kept * seen / _COUNTED * counted(given, network, example)
        before.append(seen)
    return total


def _times_kept(experiment: Experiment, epochs: int) -> int:
    """How often what frozen parts make of all samples is computed to be kept."""
    cache = experiment.cache
    if cache.place == "none":
        return 0
    if not experiment.augment:
        return 1
    return cache.copies * (math.ceil(epochs / cache.renew) if cache.renew else 1)


class Reference(NamedTuple):
    """The same network end to end.

    Attributes:
        experiment: of it; it need not have been trained, for neither work nor time
            depend on weights.
        accuracy: on the test split; None where it is not known.
    """

    experiment: Experiment
    accuracy: float | None = None


class _Whole(NamedTuple):
    """A reference with weights, and its work."""

    experiment: Experiment
    network: Network
    flops: float
    train_flops: float


def _whole(reference: Reference) -> _Whole:
    experiment = reference.experiment
    (phase,) = experiment.phases
    arguments = (experiment.key, experiment.algorithm.network, experiment.example())
    state = jax.jit(phase.init)(*arguments)
    network = phase.read(state, experiment.algorithm.network)
    stored = as_stored(experiment.dataset.train, None, dict(experiment.common))
    step = lower_step(experiment, 0, stored, state, experiment.algorithm.network)
    flops = compiler_figures(step.compile())["flops"] or 0
    steps = phase.epochs * (stored.length // experiment.batch_size)
    return _Whole(
        experiment,
        network,
        sum(inference_flops(experiment, network)),
        float(flops * steps),
    )


# Time ---------------------------------------------------------------------------------


def runner(experiment: Experiment, rule: str) -> rules.Run:
    """The network of an experiment, left by a rule, for samples on the host.

    Args:
        experiment: the experiment.
        rule: of its exits.
    """
    return rules.compacted(
        experiment.algorithm.pieces,
        lambda samples, common: experiment.prepare_inputs(samples, common).inputs,
        rule=rule,
    )


def _seconds(runs: Sequence[Callable[[], rules.Answers]]) -> list[float]:
    """Seconds of the mean sample in each of some runs, compilation left out.

    They run in turn, again and again, for a machine has other things to do, too.
    """
    counts = [len(run().exits) for run in runs]  # compiles
    shortest = [math.inf] * len(runs)
    for _ in range(_REPEATS):
        for place, run in enumerate(runs):
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            shortest[place] = min(shortest[place], taken)
    return [taken / count for taken, count in zip(shortest, counts, strict=True)]


# All of it ----------------------------------------------------------------------------


def measure(
    experiment: Experiment,
    network: Network,
    results: Mapping[str, Any],
    steps: Mapping[int, int],
    *,
    rule: str,
    goal: Goal,
    reference: Reference,
    beside: Mapping[str, tuple[Experiment, Network]],
) -> dict[str, Any]:
    """What the exits of a finished run bring, as plain JSON for exits.json.

    Args:
        experiment: the run's.
        network: what it has trained.
        results: its results.json.
        steps: updates of each exit's phase.
        rule: by which samples leave.
        goal: what τ is chosen for.
        reference: the same network end to end.
        beside: other runs of the same network, whose curves are drawn beside: name →
            experiment and network.

    Raises:
        ValueError: the run has no exits, or not this rule; or τ has to be chosen, and
            there is no validation split.
    """
    allowed = available(experiment, network)
    check_rule(rule, allowed)
    flops, whole = inference_flops(experiment, network), _whole(reference)
    validation = _validated(experiment, network, allowed, goal)
    test = look(experiment, network, experiment.dataset.test, allowed)
    tau = _threshold(validation, rule, goal, flops, whole)
    timed, seconds = _timings(experiment, network, whole, rule, tau, test, flops)
    numbers = [n for p in experiment.phases if p.predicts for n in p.exits]
    entries = [*results[f"{LABEL}s"], *results.get("without_outputs", ())]
    curves = {name: _curves(test, validation, name, flops) for name in allowed}
    chosen = _at(tau, rule, test, validation, flops, numbers)
    return {
        "rule": rule,
        "goal": goal._asdict(),
        "tau": tau,
        **chosen,
        "train_flops": train_flops(experiment, network, entries, steps, flops),
        "inference_seconds": next(t["seconds"] for t in timed if t["tau"] == tau),
        "end_to_end": {
            "accuracy": reference.accuracy,
            "train_flops": whole.train_flops,
            "inference_flops": whole.flops,
            "inference_seconds": seconds,
        },
        "curves": curves,
        "gain": _gain(curves, chosen["inference_flops"]),
        "timed": timed,
        "beside": {
            name: _beside(other, trained) for name, (other, trained) in beside.items()
        },
        "calibration": _calibration(test, rule, tau, numbers),
        "first_and_last": _first_and_last(test, rule, tau, numbers),
    }


def _threshold(
    validation: Seen | None,
    rule: str,
    goal: Goal,
    flops: Sequence[float],
    whole: _Whole,
) -> float:
    """τ for a goal."""
    if goal.tau is not None or validation is None:
        return goal.tau or 0.0
    grid = rules.thresholds(validation.sure[rule])
    found = rules.curve(validation.sure[rule], validation.right, flops, grid)
    if goal.cost is None:
        return rules.choose(found, loss=goal.loss)
    if goal.cost < (least := found.flops.min() / whole.flops):
        raise ValueError(
            f"--cost={goal.cost:g}: samples that all leave at the first exit take "
            f"{least:.4g} times the FLOPs end to end; give more than that"
        )
    return rules.choose(found, cost=goal.cost * whole.flops)


def _validated(
    experiment: Experiment, network: Network, names: Sequence[str], goal: Goal
) -> Seen | None:
    split = experiment.dataset.validation
    if len(next(iter(split.values()), ())):
        return look(experiment, network, split, names)
    if goal.tau is None:
        raise ValueError(
            "exits: the run has no validation split to choose τ on; give --tau, or "
            "train with dataset.val_fraction above 0"
        )
    return None


def _curves(
    test: Seen, validation: Seen | None, name: str, flops: Sequence[float]
) -> list[dict[str, float]]:
    """Accuracy and FLOPs at thresholds that are those of the validation split."""
    source = validation or test
    taus = rules.thresholds(source.sure[name])
    found = rules.curve(test.sure[name], test.right, flops, taus)
    rows = [
        {"tau": float(t), "accuracy": float(a), "flops": float(f)}
        for t, a, f in zip(taus, found.accuracy, found.flops, strict=True)
    ]
    if validation is not None:
        there = rules.curve(validation.sure[name], validation.right, flops, taus)
        for row, a, f in zip(rows, there.accuracy, there.flops, strict=True):
            row |= {"validation_accuracy": float(a), "validation_flops": float(f)}
    return rows


def _at(
    tau: float,
    rule: str,
    test: Seen,
    validation: Seen | None,
    flops: Sequence[float],
    numbers: Sequence[int],
) -> dict[str, Any]:
    """What a threshold makes of the test split, exit by exit and in all."""
    where = rules.leaving(test.sure[rule], tau)
    right = test.right[where, np.arange(len(where))]
    exits = [
        {
            "exit": number,
            "share": float((where == place).mean()),
            "accuracy": float(right[where == place].mean())
            if (where == place).any()
            else None,
            "flops": float(np.sum(flops[: place + 1])),
        }
        for place, number in enumerate(numbers)
    ]
    said: dict[str, Any] = {
        "exits": exits,
        "accuracy": float(right.mean()),
        "inference_flops": float(np.cumsum(flops)[where].mean()),
    }
    if validation is not None:
        one = np.array([tau])
        there = rules.curve(validation.sure[rule], validation.right, flops, one)
        said["validation_accuracy"] = float(there.accuracy[0])
    return said


def _gain(
    curves: Mapping[str, list[dict[str, float]]], flops: float
) -> dict[str, float] | None:
    """Accuracy on the test split by commitment minus that by confidence, equal FLOPs.

    `at` is at the work of the chosen threshold, `mean` over all that both reach.
    """
    if "commitment" not in curves:
        return None
    lines = {}
    for name in ("commitment", "confidence"):
        # Between two thresholds: some of the samples by one, the others by the other.
        rows = sorted((row["flops"], row["accuracy"]) for row in curves[name])
        lines[name] = np.array(rows).T
    low = max(line[0][0] for line in lines.values())
    high = min(line[0][-1] for line in lines.values())
    places = np.linspace(low, high, 101)

    def gain(at: np.ndarray) -> np.ndarray:
        one, other = (np.interp(at, *lines[n]) for n in ("commitment", "confidence"))
        return one - other

    return {
        "at": float(gain(np.array([np.clip(flops, low, high)]))[0]),
        "mean": float(gain(places).mean()),
    }


def _timings(
    experiment: Experiment,
    network: Network,
    whole: _Whole,
    rule: str,
    tau: float,
    test: Seen,
    flops: Sequence[float],
) -> tuple[list[dict[str, float]], float]:
    """Seconds of the mean sample at some thresholds, and of the network end to end."""
    grid = rules.thresholds(test.sure[rule])
    found = rules.curve(test.sure[rule], test.right, flops, grid)
    wanted = np.linspace(found.flops.min(), found.flops.max(), _TIMED)
    places = {int(np.argmin(np.abs(found.flops - each))) for each in wanted}
    taus = sorted({tau, *(float(grid[place]) for place in places)})
    samples = evaluation.contents(experiment, experiment.dataset.test)
    samples = {name: array[:_TIMED_SAMPLES] for name, array in samples.items()}
    common = dict(experiment.common)
    run, single = runner(experiment, rule), runner(whole.experiment, "confidence")
    runs = [functools.partial(run, network, common, samples, each) for each in taus]
    end_to_end = functools.partial(single, whole.network, common, samples, 0.0)
    *seconds, of_whole = _seconds([*runs, end_to_end])
    timed = [
        {"tau": each, "seconds": taken, **_point(test, rule, each, flops)}
        for each, taken in zip(taus, seconds, strict=True)
    ]
    return timed, of_whole


def _point(
    test: Seen, rule: str, tau: float, flops: Sequence[float]
) -> dict[str, float]:
    found = rules.curve(test.sure[rule], test.right, flops, np.array([tau]))
    return {"accuracy": float(found.accuracy[0]), "flops": float(found.flops[0])}


def _beside(experiment: Experiment, network: Network) -> list[dict[str, float]]:
    """The curve of another run, by the confidence of its exits."""
    names = ("confidence",)
    flops = inference_flops(experiment, network)
    test = look(experiment, network, experiment.dataset.test, names)
    validation = _validated(experiment, network, names, Goal(tau=0.0))
    return _curves(test, validation, *names, flops)


def _calibration(
    test: Seen, rule: str, tau: float, numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """How far each rule's sureness is the share of samples that are right.

    Of each exit but the last, over the samples that come to it.
    """
    where, found = rules.leaving(test.sure[rule], tau), []
    for place, number in enumerate(numbers[:-1]):
        comes = where >= place
        if not comes.any():
            continue
        for name in test.sure:
            if name == "entropy":
                continue  # no probability
            sure, right = test.sure[name][place][comes], test.right[place][comes]
            error, bins = calibration_error(sure, right)
            found.append({"exit": number, "rule": name, "ece": error, "bins": bins})
    return found


def _first_and_last(
    test: Seen, rule: str, tau: float, numbers: Sequence[int], count: int = 12
) -> dict[str, list[dict[str, Any]]]:
    """Samples of which the first exit is the surest, and the least sure to the end."""
    sure = test.sure[rule]
    where = rules.leaving(sure, tau)
    surest = np.argsort(-sure[0], kind="stable")

    def some(order: np.ndarray, place: int) -> list[dict[str, Any]]:
        return [
            {
                "sample": int(sample),
                "exit": numbers[place],
                "class": int(test.classes[place, sample]),
                "right": bool(test.right[place, sample]),
                "sure": float(sure[0, sample]),
            }
            for sample in order[where[order] == place][:count]
        ]

    return {"first": some(surest, 0), "last": some(surest[::-1], len(sure) - 1)}
