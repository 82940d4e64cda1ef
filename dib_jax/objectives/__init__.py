"""Local losses: what a stage is trained on.

An objective is a pure function `(signals) -> (loss, terms)`, built by a factory that
takes its options. It is given nothing of a later stage, so it can use nothing of one.
Where it needs networks beside the stage (a decoder, a projection), see `WithModules`.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """What the loss of a stage may see of one batch of n samples.

    Attributes:
        network_input: X, (n, …), as the first stage gets it.
        stage_input: T_{k−1}, (n, …), detached from the earlier stages.
        features: T_k, (n, …), the stage's output.
        outputs: what the stage's auxiliary head puts out, (n, …).
        targets: pytree of arrays (n, …), as the task makes them.
        key: PRNG key of this stage and step.
        stage: number of the stage, from 0; a Python int.
        task_loss: scalar, the task's loss of `outputs`.
        target_gram: (n, n), the task's Gram of the targets.
        head_loss: scalar, as `task_loss`, but its gradient reaches the head only: for
            losses that train the stage without the head.
        step: number of updates that this stage has made, an integer scalar.
        progress: share of the stage's training that is done, 0 to 1, 1 excluded.
        modules: outputs of the objective's modules for `features`, by name, float32;
            empty for an objective without modules.
    """

    network_input: jax.Array
    stage_input: jax.Array
    features: jax.Array
    outputs: jax.Array
    targets: Any
    key: jax.Array
    stage: int
    task_loss: jax.Array
    target_gram: jax.Array
    head_loss: jax.Array
    step: jax.Array | int = 0
    progress: jax.Array | float = 0.0
    modules: Mapping[str, jax.Array] = types.MappingProxyType({})


class Occasional(NamedTuple):
    """A term that is measured at some of the steps.

    Attributes:
        value: a finite scalar, whether it was measured or not.
        measured: whether it was, a boolean scalar; the mean over the steps leaves out
            the others.
    """

    value: jax.Array
    measured: jax.Array


Terms = dict[str, jax.Array | Occasional]
Objective = Callable[[Signals], tuple[jax.Array, Terms]]
Modules = Mapping[str, nn.Module]


def checked(returned: Any) -> tuple[jax.Array, Terms]:
    """What an objective has returned.

    Args:
        returned: by it, for some signals.

    Raises:
        ValueError: it is no loss with its terms.
    """
    must = "objective.name: an objective must return (loss, terms), a scalar and a dict"
    if not isinstance(returned, tuple) or len(returned) != 2:
        alone = "the loss alone" if hasattr(returned, "shape") else repr(returned)
        raise ValueError(f"{must}; got {alone}")
    loss, terms = returned
    if jnp.shape(loss) or not isinstance(terms, Mapping):
        raise ValueError(
            f"{must}; got a loss of shape {jnp.shape(loss)} and a "
            f"{type(terms).__name__}"
        )
    return loss, dict(terms)


@dataclasses.dataclass(frozen=True)
class WithModules:
    """An objective with modules, which are trained together with stage and head.

    They are applied to the stage's features as a head is, `module(features, train=…)`;
    their outputs are `signals.modules`. After training they are thrown away.

    Attributes:
        loss: the objective.
        modules: (number of the stage, shape of one sample of the network's input) → the
            modules by name; {} where that stage needs none.
    """

    loss: Objective
    modules: Callable[[int, tuple[int, ...]], Modules]

    def __call__(self, signals: Signals) -> tuple[jax.Array, Terms]:
        """The loss and its terms."""
        return self.loss(signals)
