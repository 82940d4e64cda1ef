"""Similarity matching and prediction ("predsim") on CIFAR-10, stages at once.

From Nøkland & Eidnes (arXiv 1901.06656): β = 0.99, projections by a convolution, 400
epochs of batches of 128, Adam at 5e-4 without a decay of weights. Theirs are also
VGG8B, leaky ReLUs, dropout, a rate that falls in four steps, and losses before the
pooling with heads on 4 × 4 places or fewer; here VGG-11 of twice the width, ReLUs, no
dropout, a cosine, and losses after the pooling with heads on 2 × 2 places.

Command:  python -m experiments.run --config=configs/cifar10_predsim.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(name="similarity", beta=0.99, projection="trained"),
        algorithm=dict(name="parallel"),
        optimizer=dict(name="adamw", learning_rate=5e-4, weight_decay=0),
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(name="vgg", width=4 if quick else 128, pools=4),
        epochs=1 if quick else 400,
    )
