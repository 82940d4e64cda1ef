"""Finished runs as their workdirs have them, and which of them can be compared."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dib_jax.settings import differences
from dib_jax.training import digests

END_TO_END = "end_to_end"
# In what a run and its baseline may differ: end to end there is no local loss, and
# neither probes nor what is kept of a frozen part change a run.
_MAY_DIFFER = frozenset({"objective", "algorithm", "cache", "epochs", "analysis"})


def is_end_to_end(algorithm: str) -> bool:
    """Whether an algorithm is back-propagation through all stages."""
    return algorithm in (END_TO_END, f"graph_{END_TO_END}")


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
    def algorithm(self) -> str:
        """Name of the algorithm by which it was trained."""
        return str(self.results["algorithm"])

    @property
    def end_to_end(self) -> bool:
        """Whether it was trained by back-propagation through all stages."""
        return is_end_to_end(self.algorithm)

    @property
    def counterpart(self) -> str:
        """Name of the algorithm that trains the same network end to end."""
        on_graph = self.section("model").get("name") in ("gcn", "gat")
        return f"graph_{END_TO_END}" if on_graph else END_TO_END

    @property
    def unused(self) -> Sequence[str]:
        """Sections of the config that the algorithm had no use for."""
        return self.results.get("unused", ())

    @property
    def at_once(self) -> bool:
        """Whether several of its stages trained in one phase."""
        phases = [entry.get("phase") for entry in self.results["stages"]]
        return len(set(phases)) < len(phases)

    @property
    def stage_count(self) -> int:
        """Stages of the network, whose last one every algorithm evaluates."""
        return self.results["stages"][-1]["stage"] + 1

    @property
    def passes(self) -> int | None:
        """Passes over the training split by all phases together."""
        epochs = {e.get("phase"): e.get("epochs") for e in self.results["stages"]}
        return None if None in epochs.values() else sum(epochs.values())

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the config; empty where there is none."""
        value = self.config.get(name, {})
        return value if isinstance(value, Mapping) else {}


def read_run(workdir: pathlib.Path) -> Run:
    """A finished run.

    Args:
        workdir: its folder.

    Raises:
        ValueError: it is not finished, or a file is damaged.
    """
    config, results = (
        read_json(workdir / name) for name in ("config.json", "results.json")
    )
    # Runs of version 0.1 lack the algorithm.
    for key in ("metric", "test", "stages", "algorithm"):
        if not results.get(key):
            raise ValueError(f"{workdir / 'results.json'}: {key!r} is missing or empty")
    return Run(workdir, config, results)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object of a file; ValueError where it is missing or damaged."""
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
    digests.check(path.parent, path.name)
    return value


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; ValueError where one but the last is damaged."""
    digests.check(path.parent, path.name)
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


def find_beside(workdir: pathlib.Path, algorithm: str) -> Run | None:
    """A run in a folder beside this one that differs in its algorithm alone.

    Its probes, caches and the sections that one of the two has no use for may differ.

    Args:
        workdir: of a run.
        algorithm: of the other one.

    Returns:
        The first such run by name, or None.
    """
    config = read_json(workdir / "config.json")
    for other in _neighbours(workdir):
        changed = _changed(config, other.config)
        sections = {dotted.partition(".")[0] for dotted in changed}
        allowed = {"algorithm", "cache", "analysis", *other.unused}
        if other.algorithm == algorithm and sections <= allowed:
            return other
    return None


def check_seeds(runs: Sequence[tuple[pathlib.Path, Mapping[str, Any]]]) -> None:
    """Refuse runs that are no seeds of one config: a mean over them says nothing.

    Args:
        runs: folder and config of each.

    Raises:
        ValueError: two have one seed, or differ in more than the seed.
    """
    (first, config), *_ = runs
    seeds: dict[int, pathlib.Path] = {}
    for workdir, other in runs:
        if more := [name for name in differences(config, other) if name != "seed"]:
            raise ValueError(
                f"{first} and {workdir} differ in {', '.join(more)}; give runs that "
                "differ in their seed alone"
            )
        # Counted twice it makes every interval too narrow.
        if (twin := seeds.setdefault(other["seed"], workdir)) != workdir:
            raise ValueError(
                f"{twin} and {workdir} are runs of one config and of seed "
                f"{other['seed']}; give one run of each seed"
            )


def find_baseline(workdir: pathlib.Path) -> Run | None:
    """The run that this one is to be compared with: the same, but for its algorithm.

    Looked for among finished runs in folders beside this one whose config is equal
    except for `algorithm`, `objective`, `cache`, `analysis`, `workdir` and
    `dataset.data_dir`. Epochs must be equal too, or make the same number of passes in
    all. A run that is not end to end is compared with one that is; one that is, with
    one that is not. Among several the one with the same objective and epochs is taken,
    then the first by name.

    Args:
        workdir: of a finished run.

    Returns:
        The other run, or None where there is none.

    Raises:
        ValueError: the run in `workdir` is not finished or damaged.
    """
    run = read_run(workdir)
    found = []
    for place, other in enumerate(_neighbours(workdir)):
        if run.end_to_end == other.end_to_end:
            continue
        changed = _changed(run.config, other.config)
        sections = {dotted.partition(".")[0] for dotted in changed}
        same_budget = "epochs" not in changed or run.passes == other.passes
        if sections <= _MAY_DIFFER and same_budget:
            found.append((len(sections - {"algorithm", "cache"}), place, other))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _neighbours(workdir: pathlib.Path) -> Iterator[Run]:
    """The finished runs in folders beside one, by name."""
    for path in sorted(workdir.absolute().parent.glob("*/results.json")):
        if path.parent == workdir.absolute():
            continue
        try:
            run = read_run(path.parent)
        except ValueError:
            continue  # an unfinished, foreign or damaged neighbour is not our business
        yield run


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """The fields that differ; one that a version did not have was off."""

    def is_off(dotted: str) -> bool:
        section, _, field = dotted.partition(".")
        if not field or section not in one or section not in other:
            return False
        there = [each[section] for each in (one, other) if field in each[section]]
        return len(there) == 1 and not there[0][field]

    return {dotted for dotted in differences(one, other) if not is_off(dotted)}
