"""A network's training step in PyTorch, in a process of its own.

Two libraries in one process share its processor time, and their threads disturb each
other. So `python -m dib_jax.commands.benchmarks.torch_step` reads a line that says what
to build and answers with what it is; then it makes a step for every line, and answers
with its times. All lines are JSON. PyTorch is no dependency: only this process imports
it.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# What they are called in the table, and PyTorch's names.
_LAYOUTS = {"channels first": "contiguous_format", "channels last": "channels_last"}
Stage = Mapping[str, Any]


def main() -> None:
    """Answer the lines of standard input until there are no more."""
    import torch

    work = json.loads(sys.stdin.readline())
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    step, about = fastest(build(work), work)
    print(json.dumps({**about, "version": torch.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(step)), flush=True)


def timed(step: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds that a step takes, and those that processors work for it.

    A step of training comes right after another. After seconds of waiting for the other
    library the memory of the last one is gone, and a virtual machine takes long to have
    it back; so one step that is not timed goes first.

    Args:
        step: returns when it is done.
    """
    step()
    start, worked = time.perf_counter(), time.process_time()
    step()
    end = time.perf_counter()
    return 1e3 * (end - start), 1e3 * (time.process_time() - worked)


def build(work: Mapping[str, Any]) -> Any:
    """A PyTorch module, (n, channels, side, side) → (n, classes).

    Args:
        work: has `stages`, for each the name of a module of `dib_jax.models` as `kind`
            and its attributes; `channels` and `side` of a picture; `pool`, the side of
            the grid that the last feature maps are pooled to; `classes`.
    """
    import torch
    from torch import nn

    channels, made = work["channels"], []
    for stage in work["stages"]:
        made.append(_STAGES[stage["kind"]](stage, channels))
        channels = stage["width"]
    made += [_pooling(work["pool"]), nn.Flatten()]
    picture = torch.zeros(2, work["channels"], work["side"], work["side"])
    with torch.no_grad():
        features = nn.Sequential(*made)(picture).shape[1]
    return nn.Sequential(*made, nn.Linear(features, work["classes"]))


def _convolved(channels: int, width: int, size: int = 3, stride: int = 1) -> list[Any]:
    """Convolution without a bias and batch norm, whose running mean keeps 0.9."""
    from torch import nn

    convolution = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width, eps=1e-5, momentum=0.1)]


def _plain(stage: Stage, channels: int) -> Any:
    """As `dib_jax.models.cnn.ConvolutionStage`."""
    from torch import nn

    made: list[nn.Module] = []
    count = stage["convolutions"]
    pooled = 0 if stage["pool_after"] == "first" else count - 1
    for index in range(count):
        made += [*_convolved(channels, stage["width"]), nn.ReLU(inplace=True)]
        channels = stage["width"]
        if stage["pool"] and index == pooled:
            made.append(nn.MaxPool2d(2))
    return nn.Sequential(*made)


def _stem(stage: Stage, channels: int) -> Any:
    """As `dib_jax.models.resnet.Stem`."""
    from torch import nn

    return nn.Sequential(*_convolved(channels, stage["width"]), nn.ReLU(inplace=True))


def _residual(stage: Stage, channels: int) -> Any:
    """As `dib_jax.models.resnet.ResidualStage`."""
    from torch import nn

    width, stride = stage["width"], stage["stride"]

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                *_convolved(channels, width, stride=stride),
                nn.ReLU(inplace=True),
                *_convolved(width, width),
            )
            same = stride == 1 and channels == width
            short = [] if same else _convolved(channels, width, 1, stride)
            self.shortcut = nn.Sequential(*short)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.branch(x) + self.shortcut(x), inplace=True)

    return Residual()


_STAGES: dict[str, Callable[[Stage, int], Any]] = {
    "ConvolutionStage": _plain,
    "Stem": _stem,
    "ResidualStage": _residual,
}
# The modules of `dib_jax.models` that there is a form of.
KINDS = tuple(_STAGES)


def _pooling(pool: int) -> Any:
    """As `dib_jax.models.heads.linear.flatten`: a side below `pool` stays as it is."""
    from torch import nn

    class Pool(nn.Module):
        def forward(self, x: Any) -> Any:
            grid = [min(side, pool) for side in x.shape[2:]]
            return nn.functional.adaptive_avg_pool2d(x, grid) if pool else x

    return Pool()


def loss(network: Any, images: Any, labels: Any, dtype: str) -> Any:
    """Cross-entropy of pictures, a scalar of PyTorch.

    Args:
        network: of `build`.
        images: (n, c, h, w), float32.
        labels: (n,), int64.
        dtype: of what is computed: float32, or bfloat16 by autocast.
    """
    import torch

    lower = dtype == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        outputs = network(images)
        return torch.nn.functional.cross_entropy(outputs.float(), labels)


def optimizer(network: Any, work: Mapping[str, Any]) -> Any:
    """SGD with Nesterov momentum; kernels alone decay.

    Args:
        network: of `build`.
        work: has `learning_rate`, `momentum` and `weight_decay`.
    """
    import torch

    weights = list(network.parameters())
    groups = [
        {"params": [one for one in weights if one.ndim > 1]},
        {"params": [one for one in weights if one.ndim == 1], "weight_decay": 0.0},
    ]
    momentum = work["momentum"]
    options = {"momentum": momentum, "nesterov": momentum > 0}
    return torch.optim.SGD(
        groups, work["learning_rate"], weight_decay=work["weight_decay"], **options
    )


def fastest(
    network: Any, work: Mapping[str, Any]
) -> tuple[Callable[[], None], dict[str, Any]]:
    """A step in the layout that is faster, and what it is a step of.

    Args:
        network: of `build`.
        work: what is trained and how, see `dib_jax.commands.benchmarks.peer`.

    Returns:
        A function that makes a step; and `layout`, `parameters` (how many numbers are
        trained), `flops` of a forward pass (a multiplication and an addition are two).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    side = work["side"]
    shape = (work["batch"], work["channels"], side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.arange(work["batch"]) % work["classes"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loss(network, images.float(), labels, work["dtype"])

    def step(layout: Any, update: Any) -> None:
        update.zero_grad()
        floats = images.to(torch.float32, memory_format=layout).div(255)
        loss(network, floats, labels, work["dtype"]).backward()
        update.step()

    def arranged_as(layout: Any) -> Callable[[], None]:
        network.to(memory_format=layout)
        return functools.partial(step, layout, optimizer(network, work))

    took: dict[str, float] = {}
    for name, layout in _LAYOUTS.items():
        _, took[name] = timed(arranged_as(getattr(torch, layout)))
    name = min(took, key=lambda name: took[name])
    about = {
        "layout": name,
        "parameters": sum(one.numel() for one in network.parameters()),
        "flops": counter.get_total_flops(),
    }
    return arranged_as(getattr(torch, _LAYOUTS[name])), about


if __name__ == "__main__":
    main()
