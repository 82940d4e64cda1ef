"""HSIC bottleneck on MNIST: three hidden layers trained at once, then the output layer.

Result:   test accuracy 0.9797 (one seed); results/hsic_bottleneck.md
Command:  python -m experiments.run --config=configs/mnist_hsic.py (or :quick)

:deep has 25 layers of 128 and no norms, widths relative to the features' scale: test
accuracy 0.9425, by back-propagation 0.8894 (one seed each; the same file). With 100
layers algorithm.name=sequential is the way.
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick" or "deep"."""
    quick = variant(arg, "quick", "deep") == "quick"
    deep = arg == "deep"
    return complete(
        objective=dict(
            name="hsic_bottleneck",
            balance=100.0,
            sigma=1.0 if deep else 5.0,
            epsilon=1e-3 if deep else 1e-5,
            relative=deep,
        ),
        algorithm=dict(name="parallel_readout"),
        dataset=dict(name="mnist"),
        model=dict(
            name="mlp",
            widths=(64,) * 3 if quick else (128,) * 25 if deep else (512,) * 3,
            batch_norm=not deep,
        ),
        optimizer=dict(name="adamw", learning_rate=3e-3, weight_decay=0),
        # Of the stages, of the output layer.
        epochs=1 if quick else (2, 2) if deep else (6, 2),
        batch_size=128 if deep else 256,
    )
