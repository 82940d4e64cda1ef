"""Blocks of stages with their auxiliary heads: initial state, step, epoch, outputs.

All functions here are pure. The **trunk**, the earlier stages, is an argument that no
function returns: it is frozen because nothing can update it.
"""

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from dib_jax.objectives import Modules, Objective, Signals, Terms
from dib_jax.tasks import Batch, Task

Variables = dict[str, Any]
Augmentation = Callable[[jax.Array, Batch], Batch]

# The recorded share of features that differs between samples, 0 where they are next to
# nothing beside the input of their stage.
SPREAD = "spread"
# The recorded norms of the loss's gradient with respect to the features of a batch:
# what comes through the head, and through all else in the local loss.
TASK_GRADIENT, LOCAL_GRADIENT = "task_gradient", "local_gradient"
# In a batch: what the trunk put out for it, where that was computed before.
TRUNK_OUTPUT = "trunk_output"
# Of a head's variables: weights that follow those of the next block's first stage, the
# head's `follower_decay` being what stays of them at each step.
FOLLOWER = "follower"


class StageState(flax.struct.PyTreeNode):
    """What training a block changes.

    Attributes:
        step: number of updates made, int32 scalar.
        params: of the block's stages, one entry each.
        batch_stats: of the block's stages, one entry each.
        head: variables of the auxiliary head.
        opt_state: of the optimizer over (params, head["params"], modules["params"]).
        modules: variables of the objective's own modules, by name in each collection.
    """

    step: jax.Array
    params: tuple[Any, ...]
    batch_stats: tuple[Any, ...]
    head: Variables
    opt_state: Any
    modules: Variables


def as_it_is(batch: Any) -> Any:
    """A batch, unchanged."""
    return batch


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
        prepare: uint8 images → float32 network input; a `jax.tree_util.Partial`, so
            that what it holds is an argument of compiled epochs and no part of them.
        augment: (key, batch) → batch; None where pictures stay as they are.
        compute_dtype: of activations and of the parameters as they are applied.
        batch_size: samples of one step.
        remat: whether the backward pass recomputes each stage from its input.
        modules: the objective's own modules, by name.
        steps: updates of its whole training, where that is known; 0 where not.
        every_stage: whether the objective is also applied to each inner stage of the
            block, where the task's loss is 0: what it adds to that loss counts there.
        split: lays the samples of a batch out over the devices.
    """

    trunk: tuple[nn.Module, ...]
    stages: tuple[nn.Module, ...]
    head: nn.Module
    stage: int
    task: Task
    objective: Objective
    optimizer: optax.GradientTransformation
    prepare: Callable[[jax.Array], jax.Array]
    augment: Augmentation | None
    compute_dtype: Any
    batch_size: int
    remat: bool = False
    modules: Modules = types.MappingProxyType({})
    every_stage: bool = False
    steps: int = 0
    split: Callable[[Any], Any] = as_it_is


def with_prepare(
    blocks: Sequence[Block], prepare: Callable[[jax.Array], jax.Array]
) -> tuple[Block, ...]:
    """Blocks with another `prepare`, for a function that is compiled with it as input.

    The pictures' statistics differ with the seed, which chooses the training split; as
    constants of a program they would have it compiled anew for every seed.

    Args:
        blocks: as they are.
        prepare: for all of them.
    """
    return tuple(block._replace(prepare=prepare) for block in blocks)


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
        return {"params": {}, "batch_stats": {}, **module.init(key, x, train=False)}

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
    own = {
        name: init(module, jax.random.fold_in(keys[-1], index), x)
        for index, (name, module) in enumerate(block.modules.items())
    }
    modules = {
        collection: {name: entry[collection] for name, entry in own.items()}
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
    )


def initial_states(
    blocks: Sequence[Block], keys: Sequence[jax.Array], images: jax.Array
) -> tuple[StageState, ...]:
    """Random parameters of blocks that train at once, and of their heads.

    Args:
        blocks: neighbours, input side first.
        keys: PRNG key of each.
        images: uint8 (n, h, w, c), for its shape only.

    Returns:
        The states before the first step. Heads that follow the next block start as it.
    """
    states = [
        initial_state(block, key, images)
        for block, key in zip(blocks, keys, strict=True)
    ]
    return _followed(blocks, states, from_the_start=True)


def _followed(
    blocks: Sequence[Block], states: Sequence[StageState], *, from_the_start: bool
) -> tuple[StageState, ...]:
    """The states with those heads that follow the next block one step nearer to it."""
    followed = list(states)
    for index, (block, following) in enumerate(
        zip(blocks[:-1], states[1:], strict=True)
    ):
        state = states[index]
        if FOLLOWER not in state.head:
            continue
        kept = 0.0 if from_the_start else getattr(block.head, "follower_decay", 0.0)
        weights = jax.tree.map(
            lambda own, new, kept=kept: kept * own + (1 - kept) * new,
            state.head[FOLLOWER]["params"],
            following.params[0],
        )
        head = {**state.head, FOLLOWER: {"params": weights}}
        followed[index] = state.replace(head=head)
    return tuple(followed)


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
    blocks: Sequence[Block],
    states: Sequence[StageState],
    trunk: tuple[Variables, ...],
    batch: Batch,
    *,
    keys: Sequence[jax.Array],
) -> tuple[tuple[StageState, ...], tuple[Terms, ...]]:
    """One update of blocks that train at once, each on the detached output of the last.

    Nothing of a later block enters the update of an earlier one, but that heads which
    follow the next block do so when all have been updated.

    Args:
        blocks: neighbours, input side first; one alone where blocks train in turn.
        states: of each block before the update.
        trunk: variables of the stages before the first block; read, never updated.
        batch: of the training split, `images` uint8. With the trunk's output in it,
            under `TRUNK_OUTPUT`, it is augmented already and the trunk not applied.
        keys: PRNG key of each block; the step's is folded in. All blocks see the
            augmentation of the first one's.

    Returns:
        The states after the update, and for each block the scalars to record: `loss`,
        `task_loss`, the task's and the objective's terms.
    """
    first = blocks[0]
    batch = first.split(batch)
    step_keys = [
        jax.random.split(jax.random.fold_in(key, state.step))
        for key, state in zip(keys, states, strict=True)
    ]
    if first.augment and TRUNK_OUTPUT not in batch:
        batch = _augmented(first.augment, step_keys[0][0], batch, states[0].step)
    x = network_input = first.prepare(batch["images"])
    if TRUNK_OUTPUT in batch:
        x = batch[TRUNK_OUTPUT]
    elif first.trunk:
        x = apply_frozen(first.trunk, trunk, x, compute_dtype=first.compute_dtype)[-1]
    new_states, terms = [], []
    for block, state, (_, key) in zip(blocks, states, step_keys, strict=True):
        new_state, own, x = _update(block, state, network_input, x, batch, key)
        if block is not blocks[-1]:
            x = _after(new_state, x)
        new_states.append(new_state)
        terms.append(own)
    return _followed(blocks, new_states, from_the_start=False), tuple(terms)


def _after(state: StageState, x: jax.Array) -> jax.Array:
    """x as it is, for use when a block's new state has been computed, and not before.

    What only the backward pass of one block needs is free then before the next one
    starts. Left to itself the compiler holds the features of all blocks at once, and
    on one device, which has one thing to do at a time, that is no faster.
    """

    def chosen(state: StageState, x: jax.Array) -> jax.Array:
        # On a CPU barriers are removed before the order is chosen. The compiler does
        # not know that steps are counted from 0, so it needs these numbers for x.
        first = [leaf.reshape(-1)[0] for leaf in jax.tree.leaves(state.params)]
        return jnp.where(state.step < 0, jnp.asarray(sum(first), x.dtype), x)

    def barred(state: StageState, x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier((state, x))[1]

    return jax.lax.platform_dependent(state, x, cpu=chosen, default=barred)


def _augmented(
    augment: Augmentation, key: jax.Array, batch: Batch, step: jax.Array
) -> Batch:
    def apart(key: jax.Array, batch: Batch, step: jax.Array) -> Batch:
        # XLA would join it with what reads the pictures, and resample them for each of
        # the nine shifts of a convolution and again for the information; for a CPU it
        # takes barriers away before it does so. That steps are not negative it cannot
        # know.
        return jax.lax.cond(step >= 0, augment, lambda _, batch: batch, key, batch)

    def joined(key: jax.Array, batch: Batch, step: jax.Array) -> Batch:
        del step
        return augment(key, batch)

    return jax.lax.platform_dependent(key, batch, step, cpu=apart, default=joined)


def _update(
    block: Block,
    state: StageState,
    network_input: jax.Array,
    stage_input: jax.Array,
    batch: Batch,
    key: jax.Array,
) -> tuple[StageState, Terms, jax.Array]:
    """One block's new state, its terms, and its detached output."""
    targets = block.task.targets(batch)
    kept = {
        name: entry
        for name, entry in state.head.items()
        if name not in ("params", "batch_stats")
    }

    def apply(
        module: nn.Module, params: Any, batch_stats: Any, x: jax.Array, **others: Any
    ) -> tuple[jax.Array, Any]:
        variables = {
            "params": _cast(params, block.compute_dtype),
            "batch_stats": batch_stats,
            **others,
        }
        x, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return x, changed.get("batch_stats", {})

    def forward(params: tuple[Any, ...]) -> tuple[tuple[jax.Array, ...], Any]:
        x, inner, batch_stats = stage_input.astype(block.compute_dtype), [], []
        for module, entry, stats in zip(
            block.stages, params, state.batch_stats, strict=True
        ):
            stage: Callable[..., Any] = functools.partial(apply, module)
            if block.remat:
                stage = jax.checkpoint(stage)
            x, stats = stage(entry, stats, x)
            batch_stats.append(stats)
            inner.append(x)
        return tuple(inner), tuple(batch_stats)

    def loss_fn(
        to_head: jax.Array,
        inner: tuple[jax.Array, ...],
        head_params: Any,
        module_params: Any,
    ) -> tuple[jax.Array, Any]:
        x = inner[-1]
        outputs, head_stats = apply(
            block.head, head_params, state.head["batch_stats"], to_head, **kept
        )
        outputs = _cast(outputs, jnp.float32)
        task_loss, task_terms = block.task.loss(outputs, targets)
        # Costs nothing where the objective does not use it: the compiler leaves it out.
        read, _ = apply(
            block.head,
            head_params,
            state.head["batch_stats"],
            jax.lax.stop_gradient(x),
            **kept,
        )
        head_loss, _ = block.task.loss(_cast(read, jnp.float32), targets)
        given, module_stats = {}, {}
        for name, module in block.modules.items():
            own, module_stats[name] = apply(
                module, module_params[name], state.modules["batch_stats"][name], x
            )
            given[name] = _cast(own, jnp.float32)
        signals = Signals(
            network_input=network_input,
            stage_input=stage_input,
            features=x,
            outputs=outputs,
            targets=targets,
            key=key,
            stage=block.stage,
            task_loss=task_loss,
            target_gram=block.task.target_gram(targets),
            head_loss=head_loss,
            step=state.step,
            progress=state.step / max(block.steps, 1),
            modules=given,
        )
        if block.every_stage:
            before = stage_input.astype(block.compute_dtype)
            loss, terms = _at_every_stage(block, signals, (before, *inner))
        else:
            loss, terms = block.objective(signals)
        terms = {
            "loss": loss,
            "task_loss": task_loss,
            **task_terms,
            **terms,
            SPREAD: _spread(x, stage_input),
        }
        return loss, (terms, head_stats, module_stats)

    trainable = (state.params, state.head["params"], state.modules["params"])
    inner, backward, batch_stats = jax.vjp(forward, state.params, has_aux=True)
    grads, (terms, head_stats, module_stats) = jax.grad(
        loss_fn, argnums=(0, 1, 2, 3), has_aux=True
    )(inner[-1], inner, *trainable[1:])
    through_head, (*earlier, through_loss), *others = grads
    terms |= {
        TASK_GRADIENT: _norm(through_head),
        LOCAL_GRADIENT: _norm(through_loss),
    }
    grads = (*backward((*earlier, through_loss + through_head)), *others)
    updates, opt_state = block.optimizer.update(grads, state.opt_state, trainable)
    params, head_params, module_params = optax.apply_updates(trainable, updates)
    state = StageState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        head={"params": head_params, "batch_stats": head_stats, **kept},
        opt_state=opt_state,
        modules={"params": module_params, "batch_stats": module_stats},
    )
    return state, terms, jax.lax.stop_gradient(inner[-1])


def _norm(gradient: jax.Array) -> jax.Array:
    return jnp.linalg.norm(gradient.astype(jnp.float32))


def _spread(features: jax.Array, stage_input: jax.Array) -> jax.Array:
    """How much of the features' mean square is variance between samples, 0 to 1.

    To theirs is added what features of a hundredth of the input's size would have: such
    as have all but vanished count as the same for all samples.
    """
    x, before = (
        jax.lax.stop_gradient(own).astype(jnp.float32)
        for own in (features, stage_input)
    )
    largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(before)))
    unit = jnp.where(largest > 0, largest, 1)
    x, before = x / unit, before / unit
    square = jnp.mean(x**2) + 1e-4 * jnp.mean(before**2)
    variance = jnp.mean(jnp.var(x, axis=0))
    return jnp.where(square > 0, variance / jnp.where(square > 0, square, 1), 0)


def _at_every_stage(
    block: Block, signals: Signals, inner: Sequence[jax.Array]
) -> tuple[jax.Array, Terms]:
    """The objective at the block's end, plus what it adds at the stages inside.

    Args:
        block: the block.
        signals: of its last stage.
        inner: the block's input and the output of each stage, in order.
    """
    first = block.stage - len(block.stages) + 1
    none = jnp.zeros_like(signals.task_loss)
    loss, terms = block.objective(signals._replace(stage_input=inner[-2]))
    for offset in range(len(block.stages) - 1):
        added, own = block.objective(
            signals._replace(
                stage_input=inner[offset],
                features=inner[offset + 1],
                stage=first + offset,
                task_loss=none,
                head_loss=none,
            )
        )
        loss = loss + added
        terms |= {f"stage{first + offset}_{name}": term for name, term in own.items()}
    return loss, terms


def epoch_rows(
    block: Block, key: jax.Array, step: jax.Array, *, samples: int, copies: int = 1
) -> jax.Array:
    """Which rows of the training split an epoch's steps take: a new random order.

    Args:
        block: the first of those that train.
        key: its PRNG key.
        step: updates that it has made.
        samples: of the training split.
        copies: of the split that there are.

    Returns:
        (steps, batch_size), rows among copies · samples, all of one copy, each copy in
        turn; the samples mod batch_size last ones of the order are left out.
    """
    steps = samples // block.batch_size
    order_key = jax.random.fold_in(jax.random.split(key)[1], step)
    order = jax.random.permutation(order_key, samples)[: steps * block.batch_size]
    copy = step // steps % copies
    rows = (order + copy * samples).reshape(steps, block.batch_size)
    return rows.astype(jnp.int32)


def train_steps(
    blocks: Sequence[Block],
    states: Sequence[StageState],
    trunk: tuple[Variables, ...],
    data: Batch,
    rows: jax.Array,
    streamed: Batch,
    *,
    keys: Sequence[jax.Array],
) -> tuple[tuple[StageState, ...], tuple[Terms, ...]]:
    """Some steps in succession, as one `lax.scan`.

    Args:
        blocks: as for `train_step`.
        states: of each block before.
        trunk: variables of the stages before the first block.
        data: arrays on the device, of which the steps take `rows`.
        rows: (steps, batch_size).
        streamed: arrays (steps, batch_size, …) that were taken already.
        keys: PRNG key of each block.

    Returns:
        The states after the steps, and for each block the recorded scalars of each
        step, (steps,).
    """
    step_keys = [jax.random.split(key)[0] for key in keys]

    def body(states: Any, now: tuple[jax.Array, Batch]) -> Any:
        taken = {name: leaf[now[0]] for name, leaf in data.items()}
        return train_step(blocks, states, trunk, taken | now[1], keys=step_keys)

    return jax.lax.scan(body, tuple(states), (rows, streamed))


def predict(
    blocks: Sequence[Block],
    trunk: tuple[Variables, ...],
    stages: tuple[Variables, ...],
    heads: Sequence[Variables],
    images: jax.Array,
    *,
    batch_size: int,
    trunk_done: bool = False,
) -> tuple[jax.Array, ...]:
    """The outputs of each block's head for a whole split, in inference mode.

    Args:
        blocks: neighbours, input side first.
        trunk: variables of the stages before the first block.
        stages: variables of the blocks' stages.
        heads: variables of each block's head.
        images: uint8 (n, h, w, c), or what the trunk put out for them, (n, …).
        batch_size: samples that pass through the network at once.
        trunk_done: whether it is the latter.

    Returns:
        (n, …, num_outputs) for each block, float32.
    """
    first = blocks[0]
    modules = tuple(stage for block in blocks for stage in block.stages)
    if not trunk_done:
        modules, stages = (*first.trunk, *modules), (*trunk, *stages)

    def outputs(images: jax.Array) -> tuple[jax.Array, ...]:
        images = first.split(images)
        features = apply_frozen(
            modules,
            stages,
            images if trunk_done else first.prepare(images),
            compute_dtype=first.compute_dtype,
        )
        return tuple(
            apply_frozen(
                (block.head,),
                (head,),
                features[block.stage - blocks[-1].stage - 1],
                compute_dtype=block.compute_dtype,
            )[-1].astype(jnp.float32)
            for block, head in zip(blocks, heads, strict=True)
        )

    # Zeros are added up to whole batches, and their outputs cut off again: every batch
    # has one shape, so the scan is compiled once.
    count = images.shape[0]
    batch_size = min(batch_size, count)
    padding = -count % batch_size
    images = jnp.pad(images, ((0, padding), *[(0, 0)] * (images.ndim - 1)))
    batches = images.reshape(-1, batch_size, *images.shape[1:])
    results = jax.lax.map(outputs, batches)
    return tuple(result.reshape(-1, *result.shape[2:])[:count] for result in results)
