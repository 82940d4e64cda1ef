"""Blocks of stages with auxiliary heads: the pieces that local algorithms share.

A block is some neighbouring stages that train together with one head. The **trunk**,
the earlier stages, is frozen because nothing can update it: a step gets what the trunk
made of a batch, and returns the state of its block alone.

An algorithm is made of `at_once` (blocks that train in one step), `local` (one block)
and `stack` (the whole network).
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from dib_jax.algorithms import Algorithm, AtExit, Batch, Parts, Phase
from dib_jax.algorithms.ordering import after
from dib_jax.objectives import Modules, Objective, Signals, Terms, checked
from dib_jax.tasks import Task

Variables = dict[str, Any]
# Pytrees of arrays, as flax nests them.
Params = Any
BatchStats = Any
# Signals of a block's last stage; the block's input and the output of each stage.
Loss = Callable[[Signals, Sequence[jax.Array]], tuple[jax.Array, Terms]]

# The recorded share of features that differs between samples, 0 where they are next to
# nothing beside the input of their block.
SPREAD = "spread"
# A stage whose features differ by less than 1 % of their size, or have all but
# vanished, has collapsed; of their mean square this is 1e-4.
_LEAST_SPREAD = 1e-4
# The recorded norms of the loss's gradient with respect to the features of a batch:
# what comes through the head, and through all else in the local loss.
TASK_GRADIENT, LOCAL_GRADIENT = "task_gradient", "local_gradient"


class Network(NamedTuple):
    """The trained part of a stack of stages.

    Attributes:
        stages: variables (`params`, `batch_stats`, and what else a stage has) of each
            trained stage.
        heads: variables of each trained block's head.
    """

    stages: tuple[Variables, ...] = ()
    heads: tuple[Variables, ...] = ()


class StageState(flax.struct.PyTreeNode):
    """What training a block changes.

    Attributes:
        step: number of updates made, int32 scalar.
        params: of the block's stages, one entry each.
        batch_stats: of the block's stages, one entry each.
        head: variables of the auxiliary head.
        opt_state: of the optimizer over (params, head["params"], modules["params"]).
        modules: variables of the objective's modules, by name in each collection.
        fixed: further collections of the block's stages, which neither gradient nor
            optimizer reaches, one dict each.
    """

    step: jax.Array
    params: tuple[Params, ...]
    batch_stats: tuple[BatchStats, ...]
    head: Variables
    opt_state: optax.OptState
    modules: Variables
    fixed: tuple[Variables, ...]

    def variables(self) -> tuple[Variables, ...]:
        """The stages' variables, as they are applied."""
        entries = zip(self.params, self.batch_stats, self.fixed, strict=True)
        return tuple(
            {"params": params, "batch_stats": batch_stats, **fixed}
            for params, batch_stats, fixed in entries
        )


States = tuple[StageState, ...]


class Block(NamedTuple):
    """Everything about a block that does not change while it trains; holds no arrays.

    Attributes:
        stages: the modules of its stages.
        head: the module of its head.
        stage: number of its last stage in the network, from 0.
        task: what is predicted.
        loss: its local loss.
        optimizer: of the stages', the head's and the objective's parameters.
        compute_dtype: of activations and of the parameters as they are applied.
        steps: updates of its whole training, where that is known; 0 where not.
        remat: whether the backward pass recomputes each stage from its input.
        modules: number of the stage, shape of one input of the network → the
            objective's modules by name.
    """

    stages: tuple[nn.Module, ...]
    head: nn.Module
    stage: int
    task: Task
    loss: Loss
    optimizer: optax.GradientTransformation
    compute_dtype: DTypeLike = jnp.float32
    steps: int = 0
    remat: bool = False
    modules: Callable[[int, tuple[int, ...]], Modules] = lambda stage, shape: {}

    @property
    def first(self) -> int:
        """Number of its first stage."""
        return self.stage - len(self.stages) + 1


def task_loss(signals: Signals) -> tuple[jax.Array, Terms]:
    """The task's loss alone, as an objective."""
    return signals.task_loss, {}


def at_last(objective: Objective) -> Loss:
    """A block's loss that is the objective at its last stage.

    Args:
        objective: the objective.
    """
    return lambda signals, features: checked(objective(signals))


def block(
    parts: Parts,
    stages: Sequence[int],
    epochs: int,
    *,
    per_epoch: int | None = None,
    objective: Objective | None = None,
    loss: Loss | None = None,
    remat: bool = False,
    followed: bool = False,
    fed_back: bool = False,
) -> Block:
    """A block of the network that a config describes.

    Args:
        parts: what the config gives.
        stages: numbers of the block's stages, neighbours.
        epochs: of its training.
        per_epoch: updates in each; None for those of the whole training split.
        objective: its local loss; None for that of the config.
        loss: how the objective is applied; None: at the last stage.
        remat: as of `Block`.
        followed: whether the algorithm moves the weights of a head that follows the
            next stage.
        fed_back: whether it looks after feedback weights.

    Raises:
        ValueError: the head follows the next stage, or stages have feedback weights,
            and nothing would move them.
    """
    objective, head = objective or parts.objective, parts.head(stages[-1])
    if hasattr(head, "following") and not followed:
        raise ValueError(
            "head.name: this head follows the next stage while that trains; use "
            "algorithm.name=momentum"
        )
    if not fed_back and any(getattr(stage, "feedback", "") for stage in parts.stages):
        raise ValueError(
            "algorithm.name: this one leaves feedback weights alone; use "
            "algorithm.name=feedback, or model.feedback='' for a network without them"
        )
    return Block(
        stages=tuple(parts.stages[number] for number in stages),
        head=head,
        stage=stages[-1],
        task=parts.task,
        loss=loss or at_last(objective),
        optimizer=(
            parts.optimizer(epochs)
            if per_epoch is None
            else parts.optimizer(epochs, per_epoch)
        ),
        compute_dtype=parts.compute_dtype,
        steps=epochs * (parts.steps if per_epoch is None else per_epoch),
        remat=remat,
        modules=getattr(objective, "modules", lambda stage, shape: {}),
    )


def neighbours(stages: int, size: int) -> tuple[tuple[int, ...], ...]:
    """The numbers of the stages of each block.

    Args:
        stages: how many there are.
        size: stages of a block; the last one may have fewer.

    Raises:
        ValueError: `size` is below 1, or above the number of stages.
    """
    if not 1 <= size <= stages:
        raise ValueError(
            f"blocks must be 1 to {stages}, for a block has so many of the network's "
            f"{stages} stages; got {size!r}"
        )
    return tuple(
        tuple(range(first, min(first + size, stages)))
        for first in range(0, stages, size)
    )


# The state of one block ---------------------------------------------------------------


def initial_state(
    block: Block, key: jax.Array, inputs: jax.Array, features: jax.Array
) -> StageState:
    """Random parameters of a block and its head.

    Args:
        block: the block.
        key: PRNG key.
        inputs: the network's input (n, …), for its shape only.
        features: the block's input (n, …), for its shape only.

    Returns:
        The state before the first step.
    """
    keys = jax.random.split(key, len(block.stages) + 1)

    def init(module: nn.Module, key: jax.Array, x: jax.Array) -> Variables:
        return {"params": {}, "batch_stats": {}, **module.init(key, x, train=False)}

    x = jnp.zeros((2, *features.shape[1:]))
    variables = []
    for module, stage_key in zip(block.stages, keys[:-1], strict=True):
        variables.append(init(module, stage_key, x))
        x = like_output((module,), x)
    head = init(block.head, keys[-1], x)
    extra = {
        name: init(module, jax.random.fold_in(keys[-1], index), x)
        for index, (name, module) in enumerate(_modules(block, inputs).items())
    }
    modules = {
        collection: {name: entry[collection] for name, entry in extra.items()}
        for collection in ("params", "batch_stats")
    }
    params = tuple(entry["params"] for entry in variables)
    return StageState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=tuple(entry["batch_stats"] for entry in variables),
        head=head,
        opt_state=block.optimizer.init((params, head["params"], modules["params"])),
        modules=modules,
        fixed=tuple(map(further, variables)),
    )


def further(variables: Variables) -> Variables:
    """The collections of a module that no gradient reaches and no batch changes.

    Args:
        variables: of the module.
    """
    trained = ("params", "batch_stats")
    return {name: entry for name, entry in variables.items() if name not in trained}


def _modules(block: Block, inputs: jax.Array) -> Modules:
    return block.modules(block.stage, tuple(inputs.shape[1:]))


def like_output(modules: Sequence[nn.Module], x: jax.Array) -> jax.Array:
    """Two samples of zeros, shaped as what modules make of x.

    Stages change the shape of what follows them, never its initial weights.

    Raises:
        ValueError: samples are no arrays, as nodes of a graph are none.
    """
    if not hasattr(x, "shape"):
        raise ValueError(
            "algorithm.name: this algorithm trains on arrays, and the samples of "
            "dataset.name are none; for nodes of a graph use lgcn, or another one of "
            "docs/graphs.md"
        )

    def apply(module: nn.Module, x: jax.Array) -> jax.Array:
        return module.init_with_output(jax.random.key(0), x, train=False)[0]

    x = jnp.zeros((2, *x.shape[1:]))
    for module in modules:
        shape = jax.eval_shape(functools.partial(apply, module), x)
        x = jnp.zeros(shape.shape, shape.dtype)
    return x


# Applying what is frozen --------------------------------------------------------------


def _cast(tree: Params, dtype: DTypeLike) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def apply_frozen(
    modules: Sequence[nn.Module],
    variables: Sequence[Variables],
    x: jax.Array,
    *,
    compute_dtype: DTypeLike = jnp.float32,
) -> list[jax.Array]:
    """The outputs of stages in inference mode, through which no gradient flows.

    Args:
        modules: the stages, input side first.
        variables: one dict of `params` and `batch_stats` for each.
        x: (n, …), input of the first.
        compute_dtype: of activations.

    Returns:
        The outputs (n, …) of each stage, in order.
    """
    outputs = []
    x = x.astype(compute_dtype)
    for module, entry in zip(modules, variables, strict=True):
        x = _apply_stage(module, compute_dtype, entry, x)
        outputs.append(x)
    return outputs


# Stages that are alike share this program where it is not part of another one.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_stage(
    module: nn.Module, compute_dtype: DTypeLike, variables: Variables, x: jax.Array
) -> jax.Array:
    variables = {**variables, "params": _cast(variables["params"], compute_dtype)}
    return jax.lax.stop_gradient(jnp.asarray(module.apply(variables, x, train=False)))


# One update of one block --------------------------------------------------------------


class Gradients(NamedTuple):
    """What a batch does to a block before its optimizer has seen it.

    Attributes:
        trainable: gradients with respect to the block's trainable pytree.
        terms: the scalars to record.
        features: the block's (n, …), not detached.
        batch_stats: the new statistics of stages, head and modules.
    """

    trainable: Params
    terms: Terms
    features: jax.Array
    batch_stats: tuple[BatchStats, ...]


def gradients(
    block: Block, state: StageState, batch: Batch, key: jax.Array
) -> Gradients:
    """The gradients of a block's loss, of one batch.

    Args:
        block: the block.
        state: before the update.
        batch: as of `update`.
        key: as of `update`.
    """
    # The gradient with respect to the features stands between the block's two halves.
    features, backward, batch_stats = jax.vjp(
        functools.partial(_forward, block, state, _input_of(batch)),
        state.params,
        has_aux=True,
    )
    grads, (terms, *other_stats) = jax.grad(
        functools.partial(_local_loss, block, state, batch, key),
        argnums=(0, 1, 2, 3),
        has_aux=True,
    )(features[-1], features, state.head["params"], state.modules["params"])
    through_head, (*earlier, through_loss), *others = grads
    terms |= {
        TASK_GRADIENT: _norm(through_head),
        LOCAL_GRADIENT: _norm(through_loss),
    }
    return Gradients(
        trainable=(*backward((*earlier, through_loss + through_head)), *others),
        terms=terms,
        features=features[-1],
        batch_stats=(batch_stats, *other_stats),
    )


def update(
    block: Block, state: StageState, batch: Batch, key: jax.Array
) -> tuple[StageState, Terms, jax.Array]:
    """One update of a block.

    Args:
        block: the block.
        state: before the update.
        batch: `given` is the block's input; None where that is the network's.
        key: PRNG key of the step.

    Returns:
        The new state; the scalars to record: `loss`, `task_loss`, the task's and the
        objective's terms; the block's features (n, …), detached.
    """
    trainable = (state.params, state.head["params"], state.modules["params"])
    found = gradients(block, state, batch, key)
    updates, opt_state = block.optimizer.update(
        found.trainable, state.opt_state, trainable
    )
    params, head_params, module_params = optax.apply_updates(trainable, updates)
    batch_stats, head_stats, module_stats = found.batch_stats
    state = StageState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        head={**state.head, "params": head_params, "batch_stats": head_stats},
        opt_state=opt_state,
        modules={"params": module_params, "batch_stats": module_stats},
        fixed=state.fixed,
    )
    return state, found.terms, jax.lax.stop_gradient(found.features)


def _input_of(batch: Batch) -> jax.Array:
    return batch.inputs if batch.given is None else batch.given


def _apply(
    block: Block,
    module: nn.Module,
    params: Params,
    batch_stats: BatchStats,
    x: jax.Array,
    frozen: Mapping[str, Any] = types.MappingProxyType({}),
) -> tuple[jax.Array, BatchStats]:
    """A module in training mode: its output, and its new batch statistics."""
    params = _cast(params, block.compute_dtype)
    variables = {"params": params, "batch_stats": batch_stats, **frozen}
    x, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
    return x, changed.get("batch_stats", {})


def _forward(
    block: Block,
    state: StageState,
    x: jax.Array,
    params: tuple[Params, ...],
) -> tuple[tuple[jax.Array, ...], tuple[BatchStats, ...]]:
    """The output of each stage of a block, and their new batch statistics."""
    x, outputs, new_stats = x.astype(block.compute_dtype), [], []
    entries = zip(block.stages, params, state.batch_stats, state.fixed, strict=True)
    for module, entry, stats, fixed in entries:
        stage: Callable[..., Any] = functools.partial(_apply, block, module)
        if block.remat:
            stage = jax.checkpoint(stage)
        x, stats = stage(entry, stats, x, fixed)
        new_stats.append(stats)
        outputs.append(x)
    return tuple(outputs), tuple(new_stats)


def _local_loss(
    block: Block,
    state: StageState,
    batch: Batch,
    key: jax.Array,
    to_head: jax.Array,
    features: tuple[jax.Array, ...],
    head_params: Params,
    module_params: Params,
) -> tuple[jax.Array, Any]:
    """A block's loss as a function of its features and of what reads them.

    The features come twice, so that the gradient through the head is told from the
    rest. Returned beside the loss: terms, batch statistics of the head and the modules.
    """
    x, stage_input, targets = features[-1], _input_of(batch), batch.targets
    outputs, head_stats = _head_outputs(block, state, head_params, to_head)
    value, task_terms = block.task.loss(outputs, targets)
    # Costs nothing where the objective does not use it: the compiler leaves it out.
    alone, _ = _head_outputs(block, state, head_params, jax.lax.stop_gradient(x))
    head_value, _ = block.task.loss(alone, targets)
    given, module_stats = {}, {}
    for name, module in _modules(block, batch.inputs).items():
        made, module_stats[name] = _apply(
            block, module, module_params[name], state.modules["batch_stats"][name], x
        )
        given[name] = _cast(made, jnp.float32)
    signals = Signals(
        network_input=batch.inputs,
        stage_input=stage_input,
        features=x,
        outputs=outputs,
        targets=targets,
        key=key,
        stage=block.stage,
        task_loss=value,
        target_gram=block.task.target_gram(targets),
        head_loss=head_value,
        step=state.step,
        progress=state.step / max(block.steps, 1),
        modules=given,
    )
    loss, terms = block.loss(
        signals, (stage_input.astype(block.compute_dtype), *features)
    )
    terms = {
        "loss": loss,
        "task_loss": value,
        **task_terms,
        **terms,
        SPREAD: _spread(x, stage_input),
    }
    return loss, (terms, head_stats, module_stats)


def _head_outputs(
    block: Block, state: StageState, params: Params, x: jax.Array
) -> tuple[jax.Array, BatchStats]:
    """What the head makes of features, float32, and its new batch statistics."""
    outputs, stats = _apply(
        block, block.head, params, state.head["batch_stats"], x, further(state.head)
    )
    return _cast(outputs, jnp.float32), stats


def _norm(gradient: jax.Array) -> jax.Array:
    return jnp.linalg.norm(gradient.astype(jnp.float32))


def _spread(features: jax.Array, stage_input: jax.Array) -> jax.Array:
    """How much of the features' mean square is variance between samples, 0 to 1.

    To theirs is added what features of a hundredth of the input's size would have: such
    as have all but vanished count as the same for all samples.
    """
    x, before = (
        jax.lax.stop_gradient(array).astype(jnp.float32)
        for array in (features, stage_input)
    )
    largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(before)))
    unit = jnp.where(largest > 0, largest, 1)
    x, before = x / unit, before / unit
    square = jnp.mean(x**2) + 1e-4 * jnp.mean(before**2)
    variance = jnp.mean(jnp.var(x, axis=0))
    return jnp.where(square > 0, variance / jnp.where(square > 0, square, 1), 0)


def collapse(means: Mapping[str, float]) -> dict[str, str]:
    """What recorded means say of features that are the same for all samples.

    Args:
        means: of a block's terms over an epoch.
    """
    if means[SPREAD] >= _LEAST_SPREAD:
        return {}
    return {
        "collapsed": "its features have collapsed, they are the same for all samples "
        "or next to 0; try a smaller weight of what compresses them, or kernel widths "
        "relative to their scale where the loss has that (objective.relative=True)"
    }


# Phases and the whole network ---------------------------------------------------------


def at_once(
    blocks: Sequence[Block],
    epochs: int,
    *,
    trunk: Sequence[nn.Module] = (),
    done: int = 0,
    stay: int | None = None,
    after_step: Callable[[States], States] = lambda states: states,
    after_init: Callable[[States], States] = lambda states: states,
) -> Phase:
    """A phase in which blocks train at once, each on the detached output of the last.

    Nothing of a later block enters the update of an earlier one.

    Args:
        blocks: neighbours, input side first.
        epochs: of the phase.
        trunk: modules of the earlier stages.
        done: how many of these the samples of the phase before had passed.
        stay: how many blocks the network keeps, the first ones; None for all.
        after_step: changes the states of all blocks after each step.
        after_init: changes them before the first one.
    """
    staying = blocks[:stay]
    first, last = blocks[0].first, staying[-1].stage + 1
    exits = tuple(block.stage for block in staying)

    def init(key: jax.Array, network: Network, example: Batch) -> States:
        return after_init(_initial_states(blocks, trunk, key, example))

    def step(
        states: States, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[States, dict[int, Terms]]:
        states, terms = _update_all(blocks, states, batch, key)
        return after_step(states), {number: terms[number] for number in exits}

    def read(states: States, network: Network) -> Network:
        return _with(states[: len(staying)], network)

    def given(network: Network, batch: Batch) -> jax.Array:
        dtype, variables = blocks[0].compute_dtype, network.stages[done:first]
        x = _input_of(batch)
        return apply_frozen(trunk[done:], variables, x, compute_dtype=dtype)[-1]

    def outputs(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        heads = network.heads[len(network.heads) - len(staying) :]
        return _outputs(staying, network.stages[first:last], heads, _input_of(batch))

    return Phase(
        init=init,
        step=step,
        read=read,
        epochs=epochs,
        exits=exits,
        trains=tuple(range(first, last)),
        given=given if len(trunk) > done else None,
        outputs=outputs,
        notices=collapse,
    )


def _initial_states(
    blocks: Sequence[Block], trunk: Sequence[nn.Module], key: jax.Array, example: Batch
) -> States:
    states, x = [], like_output(trunk, example.inputs)
    for block in blocks:
        block_key = jax.random.split(jax.random.fold_in(key, block.stage))[0]
        states.append(initial_state(block, block_key, example.inputs, x))
        x = like_output(block.stages, x)
    return tuple(states)


def _update_all(
    blocks: Sequence[Block], states: States, batch: Batch, key: jax.Array
) -> tuple[States, dict[int, Terms]]:
    """One update of each block, on the detached output of the one before."""
    new_states, terms = [], {}
    for index, (block, state) in enumerate(zip(blocks, states, strict=True)):
        # Not by the stage: phases have keys of their own, and stages that are alike
        # share a program.
        block_key = jax.random.fold_in(key, index)
        state, terms[block.stage], x = update(block, state, batch, block_key)
        if block is not blocks[-1]:
            x = after(x, params=state.params, step=state.step)
        batch = batch._replace(given=x)
        new_states.append(state)
    return tuple(new_states), terms


def _with(states: States, network: Network) -> Network:
    stages = tuple(entry for state in states for entry in state.variables())
    heads = tuple(state.head for state in states)
    return Network((*network.stages, *stages), (*network.heads, *heads))


def local(
    block: Block, epochs: int, *, trunk: Sequence[nn.Module] = (), done: int = 0
) -> Phase:
    """A phase in which one block trains.

    Args:
        block: the block.
        epochs: as of `at_once`.
        trunk: as of `at_once`.
        done: as of `at_once`.
    """
    return at_once((block,), epochs, trunk=trunk, done=done)


def _outputs(
    blocks: Sequence[Block],
    stages: Sequence[Variables],
    heads: Sequence[Variables],
    x: jax.Array,
) -> tuple[jax.Array, ...]:
    """The outputs of neighbouring blocks' heads, (n, …) float32."""
    modules = [module for block in blocks for module in block.stages]
    dtype = blocks[0].compute_dtype
    features = apply_frozen(modules, stages, x, compute_dtype=dtype)
    return tuple(
        apply_frozen(
            (block.head,),
            (head,),
            features[block.stage - blocks[0].first],
            compute_dtype=dtype,
        )[-1].astype(jnp.float32)
        for block, head in zip(blocks, heads, strict=True)
    )


def stack(phases: Sequence[Phase], blocks: Sequence[Block]) -> Algorithm:
    """The algorithm that trains blocks, one on top of the other.

    Args:
        phases: that train all of them.
        blocks: all of them, input side first.
    """

    def predict(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        # Of a network in training, those that are there.
        trained = blocks[: len(network.heads)]
        return _outputs(trained, network.stages, network.heads, batch.inputs)

    def features(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        modules = [module for block in blocks for module in block.stages]
        return tuple(
            apply_frozen(
                modules[: len(network.stages)],
                network.stages,
                batch.inputs,
                compute_dtype=blocks[0].compute_dtype,
            )
        )

    pieces = tuple(functools.partial(_exit, block, i) for i, block in enumerate(blocks))
    return Algorithm(tuple(phases), predict, features, Network(), pieces=pieces)


def _exit(block: Block, number: int, network: Network, x: jax.Array) -> AtExit:
    """A block and its head, the block being the one of that number."""
    stages = network.stages[block.first : block.stage + 1]
    dtype = block.compute_dtype
    x = apply_frozen(block.stages, stages, x, compute_dtype=dtype)[-1]
    head = network.heads[number]
    outputs = apply_frozen((block.head,), (head,), x, compute_dtype=dtype)[-1]
    return AtExit(x, outputs.astype(jnp.float32))
