"""Lines of metrics.jsonl: what was recorded in an epoch, for each exit."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np

from dib_jax.algorithms import Occasional, Terms

# What the lines are numbered by, in files and messages: an exit is that of a stage.
LABEL = "stage"

Metrics = dict[str, dict[str, float]]
# What sees every line that is written, as the dict that it is.
Watch = Callable[[dict[str, Any]], None]


class NonFiniteError(ArithmeticError):
    """A term of a loss became NaN or infinite."""


def means(terms: Terms, *, number: int, epoch: int) -> dict[str, float]:
    """Mean of each term over the steps of an epoch, all of which must be finite.

    The mean of an occasional term is over the steps at which it was measured. It is
    left out where there were none.

    Args:
        terms: arrays (steps,) by name.
        number: of the exit that they are of.
        epoch: from 1.

    Raises:
        NonFiniteError: a value is not finite; the message has step and term.
    """
    arrays = {name: np.asarray(_value(term)) for name, term in terms.items()}
    bad = ~np.isfinite(np.stack(list(arrays.values())))
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        name = list(arrays)[int(bad[:, step].argmax())]
        raise NonFiniteError(
            f"{LABEL} {number}, epoch {epoch}, step {step + 1} of the epoch: "
            f"{name} is {arrays[name][step]}; the last checkpoint is from before it; "
            "try a smaller optimizer.learning_rate or a longer optimizer.warmup_epochs"
        )
    counted = {
        name: arrays[name][np.asarray(term.measured)]
        if isinstance(term, Occasional)
        else arrays[name]
        for name, term in terms.items()
    }
    return {name: float(x.mean()) for name, x in counted.items() if len(x)}


def _value(term: Occasional | jax.Array) -> jax.Array:
    return term.value if isinstance(term, Occasional) else term


class Record:
    """metrics.jsonl, written at its end.

    Attributes:
        size: bytes that it has.
    """

    def __init__(self, path: pathlib.Path, watch: Watch | None = None) -> None:
        """Open the file; `watch` sees each line that is added."""
        self._watch, self._hash = watch, hashlib.sha256()
        self._file = path.open("ab")
        self.size = 0
        if path != pathlib.Path(os.devnull):
            self._add(path.read_bytes())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, content: bytes) -> None:
        self._hash.update(content)
        self.size += len(content)

    def digest(self) -> str:
        """SHA-256 of what it holds."""
        return self._hash.hexdigest()

    def write(
        self,
        metrics: Mapping[int, Metrics],
        *,
        epoch: int,
        step: int,
        seconds: float,
    ) -> None:
        """Write a line for each exit and split.

        Args:
            metrics: exit → split → name → value.
            epoch: from 1.
            step: updates that the phase has made.
            seconds: that the epoch took.
        """
        lines: list[dict[str, Any]] = [
            {
                LABEL: number,
                "epoch": epoch,
                "step": step,
                "split": split,
                **values,
                "seconds": round(seconds, 4),
            }
            for number, splits in metrics.items()
            for split, values in splits.items()
        ]
        texts = [json.dumps(line, allow_nan=False) + "\n" for line in lines]
        content = "".join(texts).encode()
        self._file.write(content)
        self._file.flush()
        self._add(content)
        if self._watch:
            for line in lines:
                self._watch(line)
