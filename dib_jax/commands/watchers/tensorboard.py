"""Curves in TensorBoard."""

import atexit
import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

from dib_jax.training.records import LABEL

# What a line holds beside what was measured.
_NOT_MEASURED = (LABEL, "epoch", "step", "split")


def tensorboard(workdir: pathlib.Path) -> Callable[[dict[str, Any]], None]:
    """Event files in `<workdir>/tensorboard`, for `tensorboard --logdir=<workdir>`.

    Args:
        workdir: of the run.

    Returns:
        What is called with every line of metrics.jsonl.

    Raises:
        ValueError: the package tensorboardX is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "--watch=tensorboard needs the package tensorboardX: pip install "
            "'dib_jax[tensorboard]'"
        )

    @functools.cache
    def writer() -> Any:
        import tensorboardX

        made = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), flush_secs=5)
        atexit.register(made.close)
        return made

    def watch(line: dict[str, Any]) -> None:
        for name in line.keys() - {*_NOT_MEASURED}:
            tag = f"{LABEL}_{line[LABEL]}/{line['split']}_{name}"
            writer().add_scalar(tag, line[name], line["step"])

    return watch
