"""Sections of configs that several published experiments share."""

from typing import Any

_COLOURS = "brightness:1.7,contrast:1.7,saturation:1.5"
# For pictures cut out around one traffic sign. No flip: mirrored, "keep left" is "keep
# right".
SIGN_CHANGES = f"affine:1.5,crop,{_COLOURS}"
# For their boxes, which `affine` knows only for ellipses: those of triangles are wrong.
SIGN_BOX_CHANGES = f"zoom:0.4,{_COLOURS}"
# For scenes with several signs.
SCENE_CHANGES = f"zoom,{_COLOURS}"


def constant_adam(learning_rate: float) -> dict[str, Any]:
    """The section `optimizer` for Adam at one rate all along, without weight decay.

    Args:
        learning_rate: above 0.
    """
    return {
        "name": "adamw",
        "learning_rate": learning_rate,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
    }


def resnet_32(quick: bool) -> dict[str, Any]:
    """Sections of what has been published for 16 local stages of a ResNet on CIFAR-10.

    A ResNet-32, batches of 1,024 and SGD at 0.8 with a cosine, which several papers
    share; a config adds how the stages learn and for how long.

    Args:
        quick: whether it is a ResNet-8 of half the width with small batches instead.

    Source: Wang et al., arXiv 2101.10832, and the settings that its authors published.
    """
    return {
        "dataset": {"name": "cifar10", "val_fraction": 0.05, "augment": "crop,flip"},
        "model": {
            "name": "resnet",
            "depth": 8 if quick else 32,
            "width": 8 if quick else 16,
        },
        "optimizer": {
            "learning_rate": 0.1 if quick else 0.8,
            "weight_decay": 1e-4,
            "warmup_epochs": 1 if quick else 10,
        },
        "batch_size": 128 if quick else 1024,
    }


def speed_record(*, widths: tuple[int, ...], epochs: int) -> dict[str, Any]:
    """Sections of the public speed record for CIFAR-10, its groups trained at once.

    The heads are built like the groups that follow. What differs from the record: no
    bias of the whitened patches is learnt, running statistics of norms are not averaged
    with the weights, norms' biases are not decayed, and output layers have a bias and
    larger weights at first.

    Args:
        widths: channels of each group of convolutions.
        epochs: passes over the data, of which the learning rate grows in 23 %.

    Source: Jordan, arXiv 2404.00498, and the settings that he published (airbench94).
    """
    return {
        "dataset": {
            "name": "cifar10",
            "val_fraction": 0.02,
            "augment": "shift,alternate_flip",
            "views": "flip,shift",
            "whiten": 2,
        },
        "model": {"name": "airbench", "widths": widths},
        "head": {
            "name": "augmented",
            "least": 1,
            "pool": 1,
            "pooling": "max",
            "output_scale": 1 / 9,
        },
        "task": {"label_smoothing": 0.2},
        "algorithm": {"name": "parallel"},
        "optimizer": {
            "learning_rate": 1.5,
            "weight_decay": 1.3e-3,
            "momentum": 0.85,
            "schedule": "linear",
            "warmup_epochs": 0.23 * epochs,
            "warmup_from": 0.2,
            "decay_to": 0.07,
            "norm_rate": 64.0,
            "lookahead": 5,
        },
        "epochs": epochs,
        "batch_size": 1024,
    }
