"""Errors through weights of their own on Fashion-MNIST: LeNet-5.

The layers' widths and the momentum are those of BioTorch's benchmark (Benchmarks.md of
github.com/jsalbert/biotorch). It enlarges the pictures to 32 × 32, pads no convolution,
has 100 epochs of batches of 64, and takes the best epoch on the test pictures. Another
rule: --config.model.feedback=NAME; back-propagation:
--config.algorithm.name=end_to_end --config.model.feedback=.

Command:  python -m experiments.run --config=configs/fashion_mnist_feedback.py
    (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        algorithm=dict(name="feedback"),
        dataset=dict(name="fashion_mnist", val_fraction=0.0),
        model=dict(name="lenet", feedback="kolen_pollack"),
        # The weight decay takes the weights of Kolen and Pollack together, and a larger
        # learning rate is too large for a mirror.
        optimizer=dict(learning_rate=0.02, weight_decay=2e-3, momentum=0.9),
        epochs=1 if quick else 10,
        batch_size=128 if quick else 32,
    )
