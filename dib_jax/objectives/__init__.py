"""Local losses: what a stage is trained on.

An objective is a pure function `(signals) -> (loss, terms)`, built by a factory that
takes its options. It is given nothing of a later stage, so it can use nothing of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Signals(NamedTuple):
    """What a stage may see of one batch of n samples.

    Attributes:
        network_input: X, (n, …), as the first stage gets it.
        stage_input: T_{k−1}, (n, …), detached from the earlier stages.
        features: T_k, (n, …), the stage's output.
        outputs: of the stage's auxiliary head, (n, …).
        targets: pytree of arrays (n, …), as the task makes them.
        key: PRNG key of this stage and step.
        stage: number of the stage, from 0; a Python int.
        task_loss: scalar, the task's loss of `outputs`.
        target_gram: (n, n), the task's Gram of the targets.
        head_loss: scalar, as `task_loss`, but its gradient reaches the head only: for
            losses that train the stage without the head.
        step: updates that this stage has made before, an integer scalar.
    """

    network_input: jax.Array
    stage_input: jax.Array
    features: jax.Array
    outputs: Any
    targets: Any
    key: jax.Array
    stage: int
    task_loss: jax.Array
    target_gram: jax.Array
    head_loss: jax.Array
    step: jax.Array | int = 0


class Occasional(NamedTuple):
    """A term that is not measured at every step.

    Attributes:
        value: a finite scalar, also where it means nothing.
        measured: whether it counts in the mean over steps, a boolean scalar.
    """

    value: jax.Array
    measured: jax.Array


Terms = dict[str, jax.Array | Occasional]
Objective = Callable[[Signals], tuple[jax.Array, Terms]]
