"""Blocks in turn, each on the samples that the exits before it have not settled."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.algorithms import (
    Algorithm,
    AtExit,
    Batch,
    Data,
    Parts,
    Phase,
    Piece,
    Terms,
    in_batches,
    per_phase,
)
from dib_jax.algorithms import blocks as local_blocks
from dib_jax.algorithms.blocks import Block, Variables
from dib_jax.algorithms.exits import confidence_logit, right_of
from dib_jax.models.options import check_at_least, check_positive

# What `enter` tells a step: that there is nothing to learn, and of how many samples of
# the training split, which is recorded, it has those it sees.
_ENDED, _SHARE = "cascade_ended", "cascade_share"


class Network(NamedTuple):
    """The trained part of a cascade.

    Attributes:
        blocks: stages and heads.
        commitments: variables of each exit's commitment layer; the last one has none.
        learnt: of each exit, a scalar: whether samples were left for it to train on.
    """

    blocks: local_blocks.Network = local_blocks.Network()
    commitments: tuple[Variables, ...] = ()
    learnt: tuple[jax.Array, ...] = ()


class Commitment(nn.Module):
    """The logit of c: how likely an exit is right, from its features and its logits.

    g = a · log(p / (1 − p)) + b + wᵀ(features, sorted logits), p the largest
    probability. It starts with a = 1 and b = w = 0, that is c = p, and learns how far
    this confidence is to be believed. Features are averages over the picture; both are
    normalized to mean 0 and length 1, so that many features do not fit few samples.
    """

    @nn.compact
    def __call__(self, features: jax.Array, outputs: jax.Array) -> jax.Array:
        """The logit (n,) from features (n, …) and the logits (n, c) of an exit."""
        x = features.astype(jnp.float32)
        x = x.mean(axis=tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x
        normalized = [
            nn.LayerNorm(use_bias=False, use_scale=False)(part) / part.shape[-1] ** 0.5
            for part in (x, jnp.sort(outputs, axis=-1))
        ]
        scale = self.param("scale", nn.initializers.ones, ())
        correction = nn.Dense(1, kernel_init=nn.initializers.zeros)
        joined = jnp.concatenate(normalized, axis=-1)
        return scale * confidence_logit(outputs) + correction(joined)[:, 0]


class State(NamedTuple):
    """Of a phase: what it trains, and whether there was nothing to train on."""

    trained: Any
    ended: jax.Array


class _Cascade(NamedTuple):
    """What the phases of a cascade share."""

    parts: Parts
    build: tuple[Callable[..., Block], ...]
    blocks: tuple[Block, ...]
    exits: tuple[Piece, ...]
    tau: float
    held_out: float


def cascade(
    parts: Parts,
    *,
    tau: float = 0.9,
    held_out: float = 0.1,
    commitment_epochs: int = 10,
    commitment_rate: float = 0.003,
    blocks: int = 1,
    remat: bool = False,
) -> Algorithm:
    """Blocks in turn, each on the samples that the exits before it have not settled.

    A block's head is an exit. Its commitment c, 0 to 1, says how likely it is right. A
    training sample is settled by an exit that is right with c ≥ tau; the blocks behind
    it never see it. A sample is answered by the first exit with c ≥ tau. Where all
    samples are settled, or those left are of one class, the cascade ends.

    Args:
        parts: network, heads, objective, as a config has them.
        tau: commitment from which an exit settles a sample, 0 to 1.
        held_out: share of the training split on which no exit trains; it trains the
            commitments, above 0 and below 1. Members of a group stay on one side.
        commitment_epochs: passes over it for each commitment layer.
        commitment_rate: learning rate of the commitment layers, by Adam.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: an option is out of range, `epochs` has not one number for each
            block, or the task is not to tell one class of each sample.

    Source: the idea is that of QuickNets, Patel & Siegelmann, arXiv 2212.12866, as its
    abstract has it. Commitment layer, held-out samples and the end are ours.
    """
    _check_shares(tau=tau, held_out=held_out)
    check_at_least(1, commitment_epochs=commitment_epochs)
    check_positive(commitment_rate=commitment_rate)
    right_of(parts.task)  # whether there is such a thing
    groups = local_blocks.neighbours(len(parts.stages), blocks)
    epochs = per_phase(parts.epochs, len(groups))
    build = tuple(
        functools.partial(local_blocks.block, parts, group, count, remat=remat)
        for group, count in zip(groups, epochs, strict=True)
    )
    made = tuple(one() for one in build)
    stacked = local_blocks.stack((), made)
    shared = _Cascade(parts, build, made, stacked.pieces, tau, held_out)
    optimizer = optax.adam(commitment_rate)
    phases = [_block_phase(shared, 0, epochs[0])]
    for number, count in enumerate(epochs[1:]):
        phases.append(_commitment_phase(shared, number, commitment_epochs, optimizer))
        phases.append(_block_phase(shared, number + 1, count))
    return Algorithm(
        tuple(phases),
        functools.partial(_predict, shared),
        lambda network, batch: stacked.features(network.blocks, batch),
        Network(),
        pieces=_pieces(shared),
    )


def _check_shares(*, tau: float, held_out: float) -> None:
    if not 0 <= tau <= 1:
        raise ValueError(f"tau must be 0 to 1, got {tau!r}")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be above 0 and below 1, got {held_out!r}")


# The network, exit by exit ------------------------------------------------------------


def _pieces(shared: _Cascade) -> tuple[Piece, ...]:
    return tuple(
        functools.partial(_piece, one, number)
        for number, one in enumerate(shared.exits)
    )


def _piece(piece: Piece, number: int, network: Network, x: Any) -> AtExit:
    """An exit with its commitment; one that has not trained repeats the one before."""
    at = piece(network.blocks, x[0] if number else x)
    outputs = at.outputs
    if number:
        outputs = jnp.where(network.learnt[number], outputs, x[1])
    commitment = None
    if number < len(network.commitments):
        variables = network.commitments[number]
        commitment = jax.nn.sigmoid(
            jnp.asarray(Commitment().apply(variables, at.carried, outputs))
        )
        if number + 1 < len(network.learnt):
            # Behind it nothing was left to learn: there is no better answer.
            goes_on = network.learnt[number + 1]
            commitment = jnp.where(goes_on, commitment, 1)
    return AtExit((at.carried, outputs), outputs, commitment)


def _predict(shared: _Cascade, network: Network, batch: Batch) -> tuple[jax.Array, ...]:
    """For each exit, the answer of the cascade that ends with it."""
    x, settled = batch.inputs, jnp.zeros(len(batch.inputs), bool)
    answers: list[jax.Array] = []
    # Of a network in training, those that are there.
    for piece in _pieces(shared)[: len(network.learnt)]:
        at = piece(network, x)
        last = answers[-1] if answers else at.outputs
        answers.append(jnp.where(settled[:, None], last, at.outputs))
        if at.commitment is not None:
            settled |= at.commitment >= shared.tau
        x = at.carried
    return tuple(answers)


# Which samples are left ---------------------------------------------------------------


def _left(
    shared: _Cascade, number: int, held: bool, network: Network, data: Data
) -> np.ndarray:
    """Rows of the training split that exits before one of a number leave to it.

    Args:
        shared: of the cascade.
        number: of the exit.
        held: of the held-out rows, those on which no exit is sure, as later when
            targets are not known; else of all others those that no exit settles.
        network: as far as it is trained.
        data: the training split.
    """
    rows, right = _side(shared, held, data), right_of(shared.parts.task)
    if not number or not len(rows):
        return rows

    def settles(batch: Batch) -> jax.Array:
        x, settled = batch.inputs, jnp.zeros(len(batch.inputs), bool)
        for piece in _pieces(shared)[:number]:
            at = piece(network, x)
            sure = jnp.asarray(at.commitment) >= shared.tau
            settled |= sure if held else sure & right(at.outputs, batch.targets)
            x = at.carried
        return settled

    return rows[~np.asarray(in_batches(settles, data.take(rows)))]


def _side(shared: _Cascade, held: bool, data: Data) -> np.ndarray:
    """The held-out rows, or the others; members of a group are on one side."""
    samples = data.samples if isinstance(data.samples, Mapping) else {}
    groups = np.asarray(samples.get("groups", np.arange(len(data))))
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(sizes))
    fits = np.cumsum(sizes[order]) <= round(shared.held_out * len(data))
    count = max(int(fits.sum()), 1)
    if len(sizes) < 2:
        raise ValueError(
            "algorithm.held_out: all samples are of one group, so none can be held out"
        )
    return np.flatnonzero(np.isin(group, order[:count]) == held)


def _enter(
    shared: _Cascade, number: int, held: bool, network: Network, data: Data
) -> Data:
    """The samples that a phase trains on; the validation split stays whole."""
    if data.validates:
        return data
    rows = _left(shared, number, held, network, data)
    ended = not len(rows)
    if len(rows) and number and not held:
        targets = in_batches(lambda batch: batch.targets, data.take(rows))
        ended = len(np.unique(np.asarray(targets))) < 2
    said = {
        _ENDED: jnp.asarray(ended),
        _SHARE: jnp.float32(len(rows) / len(data)),
    }
    # An epoch needs samples, even where nothing is learnt from them.
    chosen = np.arange(min(2, len(data))) if ended else rows
    return data.take(chosen).replace(common={**data.common, **said})


def _said(batch: Batch) -> tuple[jax.Array, Terms]:
    # A step that no `enter` came before, as where it is traced alone, has all samples.
    common = dict(batch.common)
    ended = jnp.asarray(common.get(_ENDED, False))
    return ended, {
        "samples_share": jnp.asarray(common.get(_SHARE, 1.0), jnp.float32),
        "ended": ended.astype(jnp.float32),
    }


# Phases -------------------------------------------------------------------------------


def _block_phase(
    shared: _Cascade, number: int, epochs: int, per_epoch: int | None = None
) -> Phase:
    """A block on the samples that are left to it."""
    block = shared.build[number](per_epoch=per_epoch)
    trunk = shared.parts.stages[: block.first]
    # The phase before, that of the commitment, was given the trunk's output.
    phase = local_blocks.local(block, epochs, trunk=trunk, done=len(trunk))

    def init(key: jax.Array, network: Network, example: Batch) -> State:
        return State(phase.init(key, network.blocks, example), jnp.zeros((), bool))

    def step(
        state: State, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        trained, terms = phase.step(state.trained, network.blocks, batch, key)
        ended, said = _said(batch)
        terms = {n: {**values, **said} for n, values in terms.items()}
        return State(trained, ended), terms

    def read(state: State, network: Network) -> Network:
        return network._replace(
            blocks=phase.read(state.trained, network.blocks),
            learnt=(*network.learnt, ~state.ended),
        )

    def notices(means: Mapping[str, float]) -> dict[str, str]:
        if not means["ended"]:
            return phase.notices(means)
        return {
            "ended": f"the cascade has ended before this exit: {_share(means)} of the "
            "training samples are left to it, or all that are have one class; samples "
            "leave at the exit before it"
        }

    return phase._replace(
        init=init,
        step=step,
        read=read,
        enter=functools.partial(_enter, shared, number, False),
        outputs=None,
        notices=notices,
        # Its learning rate falls while it trains, however few samples are left to it.
        paced=functools.partial(_block_phase, shared, number, epochs),
    )


def _share(means: Mapping[str, float]) -> str:
    return f"{100 * means['samples_share']:.2g} %"


def _commitment_phase(
    shared: _Cascade,
    number: int,
    epochs: int,
    optimizer: optax.GradientTransformation,
) -> Phase:
    """The commitment layer of an exit, on samples that no exit was fitted on."""
    block, module = shared.blocks[number], Commitment()
    exit_number = len(shared.parts.stages) + number

    def given(network: Network, batch: Batch) -> Any:
        x = batch.inputs if batch.given is None else batch.given
        return shared.exits[number](network.blocks, x).carried

    def init(key: jax.Array, network: Network, example: Batch) -> State:
        trunk = shared.parts.stages[: block.stage + 1]
        features = local_blocks.like_output(trunk, example.inputs)
        outputs = local_blocks.like_output((block.head,), features)
        key = jax.random.fold_in(key, exit_number)
        variables = module.init(key, features, outputs)
        return State((variables, optimizer.init(variables)), jnp.zeros((), bool))

    def step(
        state: State, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        del key
        state, terms = _commitment_step(
            shared, number, optimizer, state, network, batch
        )
        return state, {exit_number: terms}

    def read(state: State, network: Network) -> Network:
        commitments = (*network.commitments, state.trained[0])
        return network._replace(commitments=commitments)

    def notices(means: Mapping[str, float]) -> dict[str, str]:
        if not means["ended"]:
            return {}
        return {
            "ended": f"no held-out sample is left to the commitment of stage "
            f"{block.stage}: it stays the confidence"
        }

    return Phase(
        init=init,
        step=step,
        read=read,
        epochs=epochs,
        exits=(exit_number,),
        predicts=False,
        trains=(),
        enter=functools.partial(_enter, shared, number, True),
        given=given,
        notices=notices,
    )


def _commitment_step(
    shared: _Cascade,
    number: int,
    optimizer: optax.GradientTransformation,
    state: State,
    network: Network,
    batch: Batch,
) -> tuple[State, Terms]:
    """An update of a commitment layer alone, `given` being the exit's features."""
    block, module = shared.blocks[number], Commitment()
    outputs = local_blocks.apply_frozen(
        (block.head,),
        (network.blocks.heads[number],),
        batch.given,
        compute_dtype=block.compute_dtype,
    )[-1].astype(jnp.float32)
    right = right_of(shared.parts.task)(outputs, batch.targets).astype(jnp.float32)

    def loss_of(variables: Variables) -> jax.Array:
        logits = jnp.asarray(module.apply(variables, batch.given, outputs))
        return optax.sigmoid_binary_cross_entropy(logits, right).mean()

    variables, moments = state.trained
    loss, gradient = jax.value_and_grad(loss_of)(variables)
    updates, new_moments = optimizer.update(gradient, moments, variables)
    ended, said = _said(batch)
    new = (optax.apply_updates(variables, updates), new_moments)
    # Without samples c stays the confidence.
    new = jax.tree.map(lambda a, b: jnp.where(ended, a, b), state.trained, new)
    terms = {"commitment_loss": loss, "exit_right": right.mean(), **said}
    return State(new, ended), terms
