"""Errors through weights of their own on CIFAR-10: LeNet-5, or a residual network.

:resnet is a ResNet-8 of width 8 on 10,000 pictures. Another rule:
--config.model.feedback=NAME; back-propagation: --config.algorithm.name=end_to_end
--config.model.feedback=.

Command:  python -m experiments.run --config=configs/cifar10_feedback.py
    (or :resnet, or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick" or "resnet"."""
    arg = variant(arg, "quick", "resnet")
    model = dict(name="lenet")
    # The weight decay takes the weights of Kolen and Pollack together, and a larger
    # learning rate is too large for a mirror.
    optimizer = dict(learning_rate=0.02, weight_decay=2e-3, momentum=0.9)
    if arg == "resnet":
        model = dict(name="resnet", depth=8, width=8)
        # In a tenth of the steps the weight decay has as much to do.
        optimizer |= dict(learning_rate=0.1, weight_decay=4e-3)
    return complete(
        algorithm=dict(name="feedback"),
        dataset=dict(
            name="cifar10", val_fraction=0.0, samples=10000 if arg == "resnet" else 0
        ),
        model=dict(**model, feedback="kolen_pollack"),
        optimizer=optimizer,
        epochs={"quick": 1, "resnet": 15}.get(arg, 5),
        batch_size=128 if arg else 32,
        analysis=dict(every_epochs=1 if arg == "quick" else 5),
    )
