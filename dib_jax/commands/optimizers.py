"""Optimizers and learning-rate schedules by their config names, all of them optax's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib


def _sgd(
    learning_rate: optax.Schedule, weight_decay: float, momentum: float
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(learning_rate, momentum=momentum, nesterov=momentum > 0),
    )


def _adamw(
    learning_rate: optax.Schedule, weight_decay: float, momentum: float
) -> optax.GradientTransformation:
    return optax.adamw(
        learning_rate, b1=momentum, weight_decay=weight_decay, mask=_kernels
    )


def _muon(
    learning_rate: optax.Schedule, weight_decay: float, momentum: float
) -> optax.GradientTransformation:
    def axes(params: Any) -> Any:
        # A kernel is a matrix from all that one output reads to the outputs.
        return jax.tree.map(
            lambda leaf: (
                optax.contrib.MuonDimensionNumbers(
                    tuple(range(leaf.ndim - 1)), leaf.ndim - 1
                )
                if leaf.ndim > 1
                else None
            ),
            params,
        )

    return optax.contrib.muon(
        learning_rate,
        beta=momentum,
        weight_decay=weight_decay,
        weight_decay_mask=_kernels,
        muon_weight_dimension_numbers=axes,
    )


def _kernels(params: Any) -> Any:
    # Norms' scales and biases are not decayed.
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _norms(params: Any) -> Any:
    def in_norm(path: Any, leaf: Any) -> bool:
        del leaf
        return "norm" in jax.tree_util.keystr(path[:-1]).lower()

    return jax.tree_util.tree_map_with_path(in_norm, params)


class Course(NamedTuple):
    """How a learning rate of 1 changes in the updates of a phase.

    Attributes:
        steps: updates in all.
        warmup: of them those in which the rate grows to 1.
        first: the rate before the warm-up.
        last: the rate after all updates.
    """

    steps: int
    warmup: int
    first: float
    last: float


def _constant(course: Course) -> optax.Schedule:
    if course.last:
        raise ValueError(
            f"optimizer.decay_to: got {course.last}, but optimizer.schedule=constant "
            "does not decay; set it to 0, or take linear or cosine"
        )
    # Of no steps, optax's warm-up is its first value for ever.
    if not course.warmup:
        return optax.constant_schedule(1.0)
    return optax.warmup_constant_schedule(course.first, 1.0, course.warmup)


def _cosine(course: Course) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        course.first, 1.0, course.warmup, course.steps, course.last
    )


def _linear(course: Course) -> optax.Schedule:
    return optax.join_schedules(
        [
            optax.linear_schedule(course.first, 1.0, course.warmup),
            optax.linear_schedule(1.0, course.last, course.steps - course.warmup),
        ],
        [course.warmup],
    )


class _Lookahead(NamedTuple):
    made: jax.Array  # updates so far
    average: optax.Params
    rule: optax.OptState


def _lookahead(
    rule: optax.GradientTransformation, *, every: int, steps: int
) -> optax.GradientTransformation:
    """Every so many updates weights become their running average, and go on from it.

    Of the average, 0.95^every · (t/T)³ is kept at update t of T: little at first, when
    weights move far. At update T the weights are the average, unless T is less than
    `every`. Not `optax.lookahead`, which asks of who trains that parameters come in
    pairs.

    Source: Zhang et al., arXiv 1907.08610; with this course, Jordan, arXiv 2404.00498.
    """

    def init(params: optax.Params) -> _Lookahead:
        # Copied: who trains may give the buffers of both away.
        average = jax.tree.map(jnp.copy, params)
        return _Lookahead(jnp.zeros((), jnp.int32), average, rule.init(params))

    def update(
        updates: optax.Updates, state: _Lookahead, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _Lookahead]:
        updates, inner = rule.update(updates, state.rule, params)
        made = state.made + 1
        now, last = made % every == 0, (made == steps) & (steps >= every)
        kept = 0.95**every * jnp.minimum(made / steps, 1) ** 3
        moved = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda old, new: jnp.where(now, kept * old + (1 - kept) * new, old),
            state.average,
            moved,
        )
        updates = jax.tree.map(
            lambda step, to, at: jnp.where(now | last, to - at, step),
            updates,
            average,
            params,
        )
        return updates, _Lookahead(made, average, inner)

    return optax.GradientTransformation(init, update)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": _muon,
}
SCHEDULES: dict[str, Callable[[Course], optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
}


def optimizer(
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    schedule: str,
    warmup_epochs: float,
    warmup_from: float,
    decay_to: float,
    norm_rate: float,
    lookahead: int,
    epochs: int,
    steps_per_epoch: int,
) -> optax.GradientTransformation:
    """The optimizer of one stage.

    Args:
        name: sgd (Nesterov momentum, decay added to the gradient), adamw (decay
            decoupled, momentum as β₁) or muon (orthogonalised updates of matrices and
            kernels; for the others NAdam's with β₁ = 0.9, whatever the momentum; decay
            decoupled).
        learning_rate: its highest value, after the warm-up.
        weight_decay: of weight matrices and kernels; norms and biases have none.
        momentum: 0 to 1 (1 excluded).
        schedule: constant, cosine or linear.
        warmup_epochs: epochs of linear growth, at most half of all.
        warmup_from: share of `learning_rate` that it grows from.
        decay_to: share of `learning_rate` that cosine and linear fall to.
        norm_rate: factor of the learning rate of norms' scales and biases.
        lookahead: updates after which weights are set back to their running average;
            0 for never. Fewer updates than that have no average to end with.
        epochs: that the stage trains.
        steps_per_epoch: updates in an epoch; 0 where that is unknown, as 1.

    Returns:
        An optax transformation. Its state's `hyperparams` hold the highest learning
        rate and the weight decay, which a compiled step reads from there.

    Raises:
        ValueError: `warmup_from` without a warm-up, or `decay_to` with a schedule that
            does not fall.
    """
    if warmup_from and not warmup_epochs:
        raise ValueError(
            f"optimizer.warmup_from: got {warmup_from}, but optimizer.warmup_epochs=0 "
            "has no warm-up; set it to 0, or give epochs"
        )
    steps = epochs * max(steps_per_epoch, 1)
    # However short, a warm-up has an update, and so begins at `warmup_from`.
    warmup = max(round(warmup_epochs * max(steps_per_epoch, 1)), warmup_epochs > 0)
    warmup = min(warmup, steps // 2)
    course = SCHEDULES[schedule](Course(steps, warmup, warmup_from, decay_to))

    def build(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        def rate(count: jax.typing.ArrayLike) -> jax.Array:
            return learning_rate * jnp.asarray(course(count))

        rule = OPTIMIZERS[name](rate, weight_decay, momentum)
        if norm_rate != 1:
            rule = optax.chain(rule, optax.masked(optax.scale(norm_rate), _norms))
        return _lookahead(rule, every=lookahead, steps=steps) if lookahead else rule

    # As constants of the program they would have it compiled anew in every search.
    return optax.inject_hyperparams(build)(
        learning_rate=learning_rate, weight_decay=weight_decay
    )
