"""What a run says while it works: a bar on a terminal, else lines in a log."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Self

from tqdm import tqdm

from dib_jax.training.records import LABEL, Metrics

# The bar keeps its width on any terminal; what does not fit behind it is cut off.
_FORMAT = "{n_fmt}/{total_fmt} |{bar:10}| {elapsed}<{remaining} {desc}"
# Seconds between lines where there is no terminal.
_PAUSE = 5.0


class Progress:
    """Progress of a run over the epochs of all its phases, on standard error."""

    def __init__(self, epochs: int, *, shown: bool = True) -> None:
        """A bar of `epochs` epochs if standard error is a terminal; nothing unshown."""
        self._bar = tqdm(
            total=epochs,
            bar_format=_FORMAT,
            desc="starting",
            disable=None if shown else True,
            dynamic_ncols=True,
            file=sys.stderr,
        )
        self._shown, self._said = shown, float("-inf")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Take the bar away."""
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        if self._shown:
            self._bar.write(line, file=sys.stderr)
            sys.stderr.flush()

    @contextlib.contextmanager
    def compiling(self, number: int) -> Iterator[None]:
        """Say that a phase does not train yet, and then that it does.

        An epoch may take long before it can be shown. In a log the first is said where
        it was quiet for a while, and the second where compiling took a while.

        Args:
            number: of the last exit that trains in it.
        """
        self._describe(f"{LABEL} {number}: compiling")
        yield
        self._describe(f"{LABEL} {number}: compiled, training")

    def epochs_done(self, count: int) -> None:
        """Count epochs that an earlier start of the run has made."""
        self._bar.update(count)

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        metrics: Metrics,
        names: Sequence[str],
    ) -> None:
        """Show an epoch; in a log the last one of a phase, and others now and then.

        Args:
            number: of the last exit that trains.
            epoch: that is done, from 1.
            epochs: of the phase in all.
            metrics: split → name → value.
            names: of the metrics that are shown, where they are there.
        """
        shown = [f"loss {metrics['train']['loss']:.4f}"] if _has_loss(metrics) else []
        for split, values in metrics.items():
            found = [
                f"{split} {name} {values[name]:.4f}" for name in names if name in values
            ]
            # On a terminal there may be room for the last split alone.
            shown = shown + found if self._bar.disable else found + shown
        text = f"{LABEL} {number} epoch {epoch}/{epochs}: {', '.join(shown)}"
        if not self._bar.disable:
            self._bar.set_description_str(text, refresh=False)
            self._bar.update()
            self._bar.refresh()
        else:
            self._say_at_times(text, always=epoch == epochs)

    def _describe(self, text: str) -> None:
        if not self._bar.disable:
            self._bar.set_description_str(text)
        else:
            self._say_at_times(text)

    def _say_at_times(self, text: str, *, always: bool = False) -> None:
        if always or time.monotonic() - self._said >= _PAUSE:
            self.say(text)
            self._said = time.monotonic()


def _has_loss(metrics: Metrics) -> bool:
    # An algorithm need not have one: a layer may be solved for in closed form.
    return "loss" in metrics["train"]
