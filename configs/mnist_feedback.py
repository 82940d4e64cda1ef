"""Errors through weights of their own on MNIST: 500 units, after Akrout et al.

The network and the batches are those of Akrout et al.'s code (arXiv 1904.05391): 500
sigmoids, 128 samples. Momentum, a falling learning rate and softmax, instead of none of
them, take 20 epochs to where it is after 400. Another rule:
--config.model.feedback=NAME; back-propagation: --config.algorithm.name=end_to_end
--config.model.feedback=.

Command:  python -m experiments.run --config=configs/mnist_feedback.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        algorithm=dict(name="feedback"),
        dataset=dict(name="mnist", val_fraction=0.0),
        model=dict(
            name="mlp",
            widths=(64,) if quick else (500,),
            batch_norm=False,
            activation="sigmoid",
            gain=0.7,
            feedback="kolen_pollack",
        ),
        # The weight decay is what takes the weights of Kolen and Pollack together.
        optimizer=dict(learning_rate=0.3, weight_decay=2e-4, momentum=0.9),
        epochs=2 if quick else 20,
        batch_size=128,
        analysis=dict(every_epochs=1 if quick else 5),
    )
