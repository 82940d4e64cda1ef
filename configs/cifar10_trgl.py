"""Transport-regularised greedy learning on CIFAR-10: ResNet-32, all blocks at once.

From Karkar et al. (arXiv 2309.17357) and the authors' published settings for 16
modules: τ = 1, SGD at a constant 0.002, a target smoothed by 0.1, 300 epochs of batches
of 64. Theirs are of ResNet-110 on STL-10 with τ = 0.5 in the first eight modules,
orthogonal weights at the start, heads with a convolution, and a plain momentum.

Command:  python -m experiments.run --config=configs/cifar10_trgl.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(name="trgl", tau=1.0),
        task=dict(label_smoothing=0.1),
        algorithm=dict(name="parallel"),
        optimizer=dict(
            learning_rate=2e-3, weight_decay=2e-4, schedule="constant", warmup_epochs=0
        ),
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(name="resnet", depth=8 if quick else 32, width=8 if quick else 16),
        epochs=1 if quick else 300,
        batch_size=64,
    )
