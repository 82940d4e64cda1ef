"""A block of stages with its auxiliary head: initial state, step, epoch, outputs.

All functions here are pure. The **trunk**, the earlier stages, is an argument that no
function returns: it is frozen because nothing can update it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from dib_jax.objectives import Objective, Signals
from dib_jax.tasks import Batch, Task

Variables = dict[str, Any]


class StageState(flax.struct.PyTreeNode):
    """What training a block changes.

    Attributes:
        step: number of updates made, int32 scalar.
        params: of the block's stages, one entry each.
        batch_stats: of the block's stages, one entry each.
        head: variables of the auxiliary head.
        opt_state: of the optimizer over (params, head["params"]).
    """

    step: jax.Array
    params: tuple[Any, ...]
    batch_stats: tuple[Any, ...]
    head: Variables
    opt_state: Any


class Block(NamedTuple):
    """Everything about a block that does not change while it trains; holds no arrays.

    Attributes:
        trunk: the modules of the earlier stages, input side first.
        stages: the modules of the block's own stages.
        head: the module of the auxiliary head.
        stage: number of the block's last stage in the network, from 0.
        task: what is predicted.
        objective: the block's local loss.
        optimizer: of the block's and the head's parameters.
        prepare: uint8 images → float32 network input.
        augment: (key, batch) → batch.
        compute_dtype: of activations and of the parameters as they are applied.
        batch_size: samples of one step.
    """

    trunk: tuple[nn.Module, ...]
    stages: tuple[nn.Module, ...]
    head: nn.Module
    stage: int
    task: Task
    objective: Objective
    optimizer: optax.GradientTransformation
    prepare: Callable[[jax.Array], jax.Array]
    augment: Callable[[jax.Array, Batch], Batch]
    compute_dtype: Any
    batch_size: int


def initial_state(block: Block, key: jax.Array, images: jax.Array) -> StageState:
    """Random parameters of a block and its head.

    Args:
        block: the block.
        key: PRNG key.
        images: uint8 (n, h, w, c), for its shape only.

    Returns:
        The state before the first step.
    """
    keys = jax.random.split(key, len(block.stages) + 1)

    def init(module: nn.Module, key: jax.Array, x: jax.Array) -> Variables:
        return {"batch_stats": {}, **module.init(key, x, train=False)}

    # Stages change the shape of what follows them, never its values here: two samples
    # of zeros are enough.
    x = jnp.zeros((2, *images.shape[1:]))
    for module in block.trunk:
        x = _output_like(module, x)
    variables = []
    for module, stage_key in zip(block.stages, keys[:-1], strict=True):
        variables.append(init(module, stage_key, x))
        x = _output_like(module, x)
    head = init(block.head, keys[-1], x)
    params = tuple(entry["params"] for entry in variables)
    return StageState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=tuple(entry["batch_stats"] for entry in variables),
        head=head,
        opt_state=block.optimizer.init((params, head["params"])),
    )


def _output_like(module: nn.Module, x: jax.Array) -> jax.Array:
    def apply(x: jax.Array) -> jax.Array:
        return module.init_with_output(jax.random.key(0), x, train=False)[0]

    shape = jax.eval_shape(apply, x)
    return jnp.zeros(shape.shape, shape.dtype)


def frozen(state: StageState) -> tuple[tuple[Variables, ...], Variables]:
    """A block's stages and head as variables that are applied and never updated."""
    stages = tuple(
        {"params": params, "batch_stats": batch_stats}
        for params, batch_stats in zip(state.params, state.batch_stats, strict=True)
    )
    return stages, state.head


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def apply_frozen(
    modules: tuple[nn.Module, ...],
    variables: tuple[Variables, ...],
    x: jax.Array,
    *,
    compute_dtype: Any = jnp.float32,
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
        entry = {**entry, "params": _cast(entry["params"], compute_dtype)}
        x = jax.lax.stop_gradient(jnp.asarray(module.apply(entry, x, train=False)))
        outputs.append(x)
    return outputs


def train_step(
    block: Block,
    state: StageState,
    trunk: tuple[Variables, ...],
    batch: Batch,
    *,
    key: jax.Array,
) -> tuple[StageState, dict[str, jax.Array]]:
    """One update of a block and its head.

    Args:
        block: the block.
        state: before the update.
        trunk: variables of the earlier stages; read, never updated.
        batch: of the training split, `images` uint8.
        key: PRNG key of the stage; the step's is folded in.

    Returns:
        The state after the update, and the scalars to record: `loss`, `task_loss`, the
        task's and the objective's terms.
    """
    augment_key, objective_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = block.augment(augment_key, batch)
    network_input = block.prepare(batch["images"])
    targets = block.task.targets(batch)
    before = apply_frozen(
        block.trunk, trunk, network_input, compute_dtype=block.compute_dtype
    )
    stage_input = before[-1] if before else network_input

    def apply(
        module: nn.Module, params: Any, batch_stats: Any, x: jax.Array
    ) -> tuple[jax.Array, Any]:
        variables = {
            "params": _cast(params, block.compute_dtype),
            "batch_stats": batch_stats,
        }
        x, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return x, changed.get("batch_stats", {})

    def loss_fn(trainable: tuple[Any, Any]) -> tuple[jax.Array, Any]:
        params, head_params = trainable
        x, batch_stats = stage_input.astype(block.compute_dtype), []
        for module, entry, stats in zip(
            block.stages, params, state.batch_stats, strict=True
        ):
            x, stats = apply(module, entry, stats, x)
            batch_stats.append(stats)
        outputs, head_stats = apply(
            block.head, head_params, state.head["batch_stats"], x
        )
        outputs = _cast(outputs, jnp.float32)
        task_loss, task_terms = block.task.loss(outputs, targets)
        signals = Signals(
            network_input=network_input,
            stage_input=stage_input,
            features=x,
            outputs=outputs,
            targets=targets,
            key=objective_key,
            stage=block.stage,
            task_loss=task_loss,
            target_gram=block.task.target_gram(targets),
        )
        loss, terms = block.objective(signals)
        terms = {"loss": loss, "task_loss": task_loss, **task_terms, **terms}
        return loss, (terms, tuple(batch_stats), head_stats)

    trainable = (state.params, state.head["params"])
    grads, (terms, batch_stats, head_stats) = jax.grad(loss_fn, has_aux=True)(trainable)
    updates, opt_state = block.optimizer.update(grads, state.opt_state, trainable)
    params, head_params = optax.apply_updates(trainable, updates)
    state = StageState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        head={"params": head_params, "batch_stats": head_stats},
        opt_state=opt_state,
    )
    return state, terms


def epoch_order(
    key: jax.Array, step: jax.Array, *, count: int, batch_size: int
) -> jax.Array:
    """The order in which an epoch takes the samples of the training split.

    Args:
        key: PRNG key of the stage.
        step: of the state before the epoch, so that each epoch has an order of its own.
        count: samples of the training split.
        batch_size: samples of one step; the count mod batch_size last ones of the order
            are left out.

    Returns:
        Rows of the split, (steps, batch_size).
    """
    _, order_key = jax.random.split(key)
    order = jax.random.permutation(jax.random.fold_in(order_key, step), count)
    steps = count // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def train_epoch(
    block: Block,
    state: StageState,
    trunk: tuple[Variables, ...],
    data: Batch,
    *,
    key: jax.Array,
) -> tuple[StageState, dict[str, jax.Array]]:
    """One pass over the training split in a new random order, as one `lax.scan`.

    Args:
        block: the block.
        state: before the pass.
        trunk: variables of the earlier stages.
        data: the training split, n samples.
        key: PRNG key of the stage; the epoch's order depends on it and on `state.step`.

    Returns:
        The state after the pass, and the recorded scalars of each step, (steps,).
    """
    order = epoch_order(
        key,
        state.step,
        count=data["images"].shape[0],
        batch_size=block.batch_size,
    )
    step_key, _ = jax.random.split(key)

    def body(
        state: StageState, rows: jax.Array
    ) -> tuple[StageState, dict[str, jax.Array]]:
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        return train_step(block, state, trunk, batch, key=step_key)

    return jax.lax.scan(body, state, order)


def train_chunk(
    block: Block,
    state: StageState,
    trunk: tuple[Variables, ...],
    batches: Batch,
    *,
    key: jax.Array,
) -> tuple[StageState, dict[str, jax.Array]]:
    """Some steps of an epoch on batches that were put together elsewhere.

    Args:
        block: the block.
        state: before these steps.
        trunk: variables of the earlier stages.
        batches: of the training split, (steps, batch_size, …).
        key: as for `train_epoch`; with its batches in its order, the same state.

    Returns:
        The state after them, and the recorded scalars of each step, (steps,).
    """
    step_key, _ = jax.random.split(key)

    def body(
        state: StageState, batch: Batch
    ) -> tuple[StageState, dict[str, jax.Array]]:
        return train_step(block, state, trunk, batch, key=step_key)

    return jax.lax.scan(body, state, batches)


def predict(
    block: Block,
    trunk: tuple[Variables, ...],
    stages: tuple[Variables, ...],
    head: Variables,
    images: jax.Array,
    *,
    batch_size: int,
) -> jax.Array:
    """The head's outputs for a whole split, in inference mode.

    Args:
        block: the block.
        trunk: variables of the earlier stages.
        stages: variables of the block's stages.
        head: variables of the block's head.
        images: uint8 (n, h, w, c).
        batch_size: samples that pass through the network at once.

    Returns:
        (n, …, num_outputs), float32.
    """

    def outputs(images: jax.Array) -> jax.Array:
        features = apply_frozen(
            (*block.trunk, *block.stages),
            (*trunk, *stages),
            block.prepare(images),
            compute_dtype=block.compute_dtype,
        )[-1]
        return apply_frozen(
            (block.head,), (head,), features, compute_dtype=block.compute_dtype
        )[-1].astype(jnp.float32)

    # Zeros are added up to whole batches, and their outputs cut off again: every batch
    # has one shape, so the scan is compiled once.
    count = images.shape[0]
    batch_size = min(batch_size, count)
    padding = -count % batch_size
    images = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    batches = images.reshape(-1, batch_size, *images.shape[1:])
    result = jax.lax.map(outputs, batches)
    return result.reshape(-1, *result.shape[2:])[:count]
