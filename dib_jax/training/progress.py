"""What a run says while it works: a bar on a terminal, else a line for each epoch."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from dib_jax.training.records import LABEL, Metrics


class Progress:
    """Progress of a run over the epochs of all its phases, on standard error."""

    def __init__(self, epochs: int, *, shown: bool = True) -> None:
        """A bar of `epochs` epochs if standard error is a terminal; nothing unshown."""
        disable = None if shown else True
        self._bar = tqdm(total=epochs, unit="epoch", disable=disable, file=sys.stderr)
        self._shown = shown

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        if self._shown:
            self._bar.write(line, file=sys.stderr)
            sys.stderr.flush()

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
        """Show an epoch.

        Args:
            number: of the last exit that trains.
            epoch: that is done, from 1.
            epochs: of the phase in all.
            metrics: split → name → value.
            names: of the metrics that are shown, where they are there.
        """
        shown = [f"loss {metrics['train']['loss']:.4f}"] if _has_loss(metrics) else []
        for split, values in metrics.items():
            shown += [
                f"{split} {name} {values[name]:.4f}" for name in names if name in values
            ]
        text = f"{LABEL} {number} epoch {epoch}/{epochs}: {', '.join(shown)}"
        if self._bar.disable:
            self.say(text)
        else:
            self._bar.set_description_str(text)
            self._bar.update()


def _has_loss(metrics: Metrics) -> bool:
    # An algorithm need not have one: a layer may be solved for in closed form.
    return "loss" in metrics["train"]
