"""FLOPs that the compiler's own count of a program leaves out: those of its loops.

XLA counts the body of a loop once, however often it runs.
"""

import collections
import dataclasses
import math
import re

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = \w+\[([\d,]*)\]\S* ([\w-]+)\(")
_OPERAND = re.compile(r"%([\w.-]+)")
_SUMMED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%([\w.-]+)")
_EITHER = re.compile(r"(?:true|false)_computation=%([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass
class _Computation:
    """Its own products, and what it calls, each with how often."""

    flops: int = 0
    # Names of which one is called, and how often.
    calls: list[tuple[list[str], int]] = dataclasses.field(default_factory=list)


def flops_of_loops(text: str) -> int:
    """FLOPs of products and convolutions in loops, less those of one turn of each.

    Loops whose number of turns the compiler does not know count nothing, and neither
    do a GPU's calls of libraries in loops. Of the branches of a condition the largest
    counts, as XLA has it. In convolutions zeros beyond the border count.

    Args:
        text: of a compiled program, as `as_text` of it gives.
    """
    if "known_trip_count" not in text:
        return 0
    computations, entry = _read(text)
    # Callees stand before their callers.
    once: dict[str, int] = collections.defaultdict(int)
    often: dict[str, int] = collections.defaultdict(int)
    for name, computation in computations.items():
        calls = computation.calls
        once[name] = computation.flops + sum(
            max(once[name] for name in called) for called, _ in calls
        )
        often[name] = computation.flops + sum(
            max(often[name] for name in called) * times for called, times in calls
        )
    return often[entry] - once[entry]


def _read(text: str) -> tuple[dict[str, _Computation], str]:
    """Computations by name, and the name of the program's own."""
    computations: dict[str, _Computation] = {}
    shapes: dict[str, list[int]] = {}
    name = entry = ""
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            name, shapes = begins[2], {}
            computations[name] = _Computation()
            entry = name if begins[1] else entry
            continue
        if found := _INSTRUCTION.match(line):
            shapes[found[1]] = _numbers(found[2])
            if found[3] in ("dot", "convolution"):
                computations[name].flops += _flops(line[found.end() :], found, shapes)
        if "=%" in line or "={%" in line:
            turns = _TRIPS.search(line)
            times = int(turns[1]) if turns else 1
            called = [[each] for each in _CALLED.findall(line)]
            branches = _EITHER.findall(line)
            for listed in _BRANCHES.findall(line):
                branches += _OPERAND.findall(listed)
            called += [branches] if branches else []
            computations[name].calls += [(each, times) for each in called]
    return computations, entry


def _flops(rest: str, found: re.Match[str], shapes: dict[str, list[int]]) -> int:
    """Of a product or convolution; a multiplication and an addition are two."""
    left, right = (shapes.get(name, []) for name in _OPERAND.findall(rest)[:2])
    made = math.prod(_numbers(found[2]))
    if found[3] == "dot":
        axes = _SUMMED.search(rest)
        summed = math.prod(left[axis] for axis in _numbers(axes[1] if axes else ""))
        return 2 * made * summed
    labels = _LABELS.search(rest)
    outputs = right[labels[1].index("o")] if labels else 1
    return 2 * made * math.prod(right) // outputs


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",") if each]
