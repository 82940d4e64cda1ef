"""Layer-by-layer training of deep networks on information-theoretic losses."""

import os
import typing

if typing.TYPE_CHECKING:
    from dib_jax.commands.trained import Model


def load(workdir: str | os.PathLike[str]) -> "Model":
    """The network of a finished run, to be called.

    Example:
        ```
        model = dib_jax.load("runs/digits_cnn-quick-seed0")
        model("digit.png")  # → [{"label": 3, "class_name": "3", "score": 0.97}]
        ```

    Args:
        workdir: the folder of a run.

    Returns:
        A function of pictures, file names or arrays, see
        `dib_jax.commands.trained.Model`; it has `outputs`, `exits` and `features`, too.

    Raises:
        ValueError: there is no finished run.
    """
    # Late: `import dib_jax` is light.
    from dib_jax.commands.trained import Model

    return Model(workdir)
