"""What a run says while it works: a bar on a terminal, else a line for each epoch."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """Progress of a run over all epochs of all its blocks, on standard error."""

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
        self, stage: int, epoch: int, epochs: int, metrics: dict[str, dict[str, float]]
    ) -> None:
        """Show an epoch of a stage.

        Args:
            stage: number of the stage, from 0.
            epoch: that is done, from 1.
            epochs: of this stage in all.
            metrics: split → name → value.
        """
        shown = [f"loss {metrics['train']['loss']:.4f}"]
        for split, values in metrics.items():
            shown += [
                f"{split} {name} {values[name]:.4f}"
                for name in ("accuracy", "ap50")
                if name in values
            ]
        text = f"stage {stage} epoch {epoch}/{epochs}: {', '.join(shown)}"
        if self._bar.disable:
            self.say(text)
        else:
            self._bar.set_description_str(text)
            self._bar.update()
