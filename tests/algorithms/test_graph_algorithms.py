"""Graph networks layer by layer and end to end, on a graph of sixty nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_graphs import COUNT, WIDTH, dataset, parts_of, split, train

from dib_jax.algorithms import in_batches
from dib_jax.algorithms.graph_end_to_end import graph_end_to_end
from dib_jax.algorithms.l2gcn import l2gcn
from dib_jax.algorithms.lgcn import lgcn
from dib_jax.algorithms.lrgi import loss_terms, lrgi
from dib_jax.algorithms.nodes import dense, joined, neighbours, sampled
from dib_jax.algorithms.sequential import sequential
from dib_jax.algorithms.sgc import sgc
from dib_jax.algorithms.stopping import patient
from dib_jax.data.graphs import Mapped
from dib_jax.models.gat import gat
from dib_jax.models.gcn import gcn
from dib_jax.models.graph import (
    Attention,
    Neighbours,
    product,
    project,
    sums_over_segments,
)
from dib_jax.models.mlp import mlp

pytestmark = pytest.mark.once

RULES = ("residual", "symmetric", "mean")


def adjacency(*, inductive=False):
    starts, columns, values = dataset().kind.common(dataset().train)["graph"].edges[:3]
    made = np.zeros((COUNT, COUNT))
    made[np.repeat(np.arange(COUNT), np.diff(starts)), columns] = values
    if inductive:
        made[30:] = made[:, 30:] = 0
    return made


def operator(rule, **options):
    """The matrix by its formula."""
    own, edges = np.eye(COUNT), adjacency(**options)
    degree = np.diag(1 + edges.sum(axis=1))
    if rule == "symmetric":
        root = np.sqrt(np.linalg.inv(degree))
        return root @ (edges + own) @ root
    mean = np.linalg.inv(degree) @ (edges + own)
    return mean + own if rule == "residual" else mean


def graph():
    return split().common["graph"]


@pytest.mark.parametrize("inductive", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_neighbours_are_joined_by_the_formula_on_the_device_and_on_the_host(
    rule, inductive
):
    want = operator(rule, inductive=inductive) @ np.asarray(graph().features)
    near = neighbours(graph(), rule, training=inductive)
    np.testing.assert_allclose(near.join(graph().features), want, atol=1e-5)
    rows = joined(split(), (), (), rule=rule, inductive=inductive).samples["features"]
    np.testing.assert_allclose(rows, want[:30], atol=1e-5)


def test_in_validation_an_inductive_layer_sees_all_edges():
    data = joined(split("validation"), (), (), rule="mean", inductive=True)
    want = (operator("mean") @ np.asarray(graph().features))[30:45]
    np.testing.assert_allclose(data.samples["features"], want, atol=1e-5)


def test_a_product_and_its_gradient_are_those_of_the_dense_matrix():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(COUNT, 3)), jnp.float32)
    ways = []
    for way in (False, True):

        def loss(x, way=way):
            return jnp.sum(jnp.sin(product(graph().edges, x)))

        if way:
            with sums_over_segments():
                ways.append(jax.jit(jax.value_and_grad(loss))(x))
        else:
            ways.append(jax.jit(jax.value_and_grad(loss))(x))
    made = adjacency() @ np.asarray(x)
    for value, gradient in ways:
        np.testing.assert_allclose(value, np.sin(made).sum(), rtol=1e-4)
        np.testing.assert_allclose(gradient, adjacency().T @ np.cos(made), atol=1e-4)


@pytest.fixture
def mapped(tmp_path):
    """The training split with its features in a file."""
    path, data = tmp_path / "features.npy", split()
    features = np.asarray(graph().features)
    np.save(path, features)
    file = Mapped(path, np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32))
    return data.replace(common={"graph": graph()._replace(features=file)})


def test_features_in_a_file_train_as_those_in_memory(mapped):
    rows = joined(mapped, (), (), rule="residual").samples["features"]
    assert isinstance(rows, np.memmap)
    plain = joined(split(), (), (), rule="residual").samples["features"]
    np.testing.assert_allclose(rows, plain, atol=1e-5)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(WIDTH, 2)), jnp.float32)

    def loss(kernel, features):
        return jnp.sum(jnp.sin(project(features, kernel)))

    way = jax.jit(jax.value_and_grad(loss))
    found, want = (
        way(weights, data.common["graph"].features) for data in (mapped, split())
    )
    np.testing.assert_allclose(found[0], want[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], want[1], atol=1e-4)


def test_sparse_features_are_joined_and_made_dense_as_dense_ones():
    data = split(sparse=True)
    rows = data.common["graph"].rows(jnp.arange(COUNT))
    want = operator("mean")[:30] @ np.asarray(rows)
    found = joined(data, (), (), rule="mean").samples["features"]
    np.testing.assert_allclose(dense(found, WIDTH), want, atol=1e-5)
    columns = jnp.array([[1, 3, 0], [2, 0, 0]])
    values = jnp.array([[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    np.testing.assert_array_equal(
        dense((columns, values), 4), [[0, 1, 0, 2], [0, 0, 5, 0]]
    )


ALGORITHMS = {
    "lgcn": lambda: lgcn(parts_of()),
    "lgcn_inductive": lambda: lgcn(parts_of(), inductive=True, rule="symmetric"),
    "whole": lambda: graph_end_to_end(parts_of(), dropout=0.2),
    "sampled": lambda: graph_end_to_end(parts_of(), fanout=3, rule="residual"),
    "attention": lambda: graph_end_to_end(
        parts_of(stages=gat(widths=(4, 4), heads=2)), inductive=True
    ),
    "sgc": lambda: sgc(parts_of(stages=gcn(widths=(4,), activation="none"))),
    "no_graph": lambda: sgc(parts_of(), hops=0),
    "lrgi": lambda: lrgi(
        parts_of(stages=gcn(widths=(4, 4), activation="elu", skip=True)), samples=20
    ),
}


@pytest.mark.parametrize(
    ("name", "sparse"),
    [(name, False) for name in ALGORITHMS] + [("lgcn", True), ("sampled", True)],
)
def test_every_phase_lowers_its_loss_and_outputs_are_those_of_predict(name, sparse):
    algorithm = ALGORITHMS[name]()
    data = split(sparse=sparse)
    network, recorded = train(algorithm, data)
    for terms in recorded:
        for values in terms.values():
            assert values["loss"][1] < values["loss"][0]
    held = split("validation", sparse=sparse)
    predict = jax.jit(lambda: in_batches(
        lambda batch: algorithm.predict(network, batch), held, size=4
    ))  # fmt: skip
    outputs = predict()
    exits = sum(len(phase.exits) for phase in algorithm.phases if phase.predicts)
    assert len(outputs) == exits
    # What validation saw of rows is what the whole graph gives.
    last = algorithm.phases[-1]
    entered = last.enter(network, held) if last.enter else held
    own = last.outputs(network, entered.batch())
    np.testing.assert_allclose(
        np.reshape(own[-1], outputs[-1].shape), outputs[-1], atol=1e-4
    )
    features = algorithm.features(network, held.batch())
    assert [x.shape[0] for x in features] == [15] * len(features)


INDUCTIVE = {
    **{name: ALGORITHMS[name] for name in ("lgcn_inductive", "attention")},
    "l2gcn": lambda: l2gcn(parts_of(), inductive=True),
    "sgc": lambda: sgc(
        parts_of(stages=gcn(widths=(4,), activation="none")), inductive=True
    ),
    "sampled": lambda: graph_end_to_end(parts_of(), fanout=3, inductive=True),
    "lrgi": lambda: lrgi(parts_of(), samples=20, inductive=True),
}


@pytest.mark.parametrize("name", INDUCTIVE)
def test_inductive_training_does_not_see_the_features_of_other_nodes(name):
    data, algorithm = split(), INDUCTIVE[name]()
    own = data.common["graph"]
    hidden = ~np.asarray(own.train)[:, None]
    moved = own._replace(features=own.features + 5.0 * hidden)
    other = data.replace(common={**data.common, "graph": moved})
    networks = [train(algorithm, one, steps=3)[0] for one in (data, other)]
    for one, same in zip(*map(jax.tree.leaves, networks), strict=True):
        np.testing.assert_array_equal(one, same)
    held = split("validation")
    predicted = [
        algorithm.predict(networks[0], held.replace(common=one.common).batch())
        for one in (data, other)
    ]
    assert np.abs(predicted[0][-1] - predicted[1][-1]).max() > 1e-3


@pytest.mark.parametrize("algorithm", [lgcn, l2gcn, sgc, lrgi, graph_end_to_end])
def test_a_precision_that_graphs_do_not_compute_in_is_refused(algorithm):
    parts = parts_of(
        stages=gcn(widths=(4,), activation="none"), compute_dtype=jnp.bfloat16
    )
    with pytest.raises(ValueError, match="graphs compute in float32, got bfloat16"):
        algorithm(parts)


def test_a_step_of_a_layer_has_nothing_to_do_with_the_graph():
    algorithm = lgcn(parts_of())
    data = split()
    network, _ = train(algorithm._replace(phases=algorithm.phases[:1]), data)
    phase = algorithm.phases[1]
    batch = phase.enter(network, data).take(slice(8)).batch()
    state = phase.init(jax.random.key(0), network, batch)

    def lowered(common):
        step = jax.jit(phase.step)
        text = step.lower(
            state, network, batch._replace(common=common), jax.random.key(0)
        )
        return text.compile().memory_analysis().temp_size_in_bytes

    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch.common)
    assert lowered(batch.common) == lowered(twice)


def test_the_trunk_is_left_as_it_is():
    algorithm = lgcn(parts_of())
    first, _ = train(algorithm._replace(phases=algorithm.phases[:1]), split())
    both, _ = train(algorithm, split())
    for one, other in zip(
        jax.tree.leaves(first.stages[0]), jax.tree.leaves(both.stages[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rule", ["symmetric", "residual"])
def test_drawn_neighbours_are_all_of_them_where_all_are_drawn(rule):
    """A path: with one neighbour each, whatever is drawn is all there is."""
    count = 6
    pairs = np.arange(count) ^ 1  # 0–1, 2–3, 4–5
    one = (np.arange(count + 1), pairs, np.ones(count, np.float32))
    edges = type(graph().edges)(*one, one)
    own = graph()._replace(edges=edges, features=jnp.arange(12.0).reshape(6, 2))
    near = Neighbours(edges, rule)
    nodes = jnp.array([4, 1])
    x, (tree,) = sampled(own, near, nodes, 3, 1, jax.random.key(0))
    np.testing.assert_allclose(tree.join(x), near.join(own.features)[nodes], rtol=1e-6)


def test_attention_of_equal_scores_is_the_mean_with_the_node_itself():
    module = Attention(width=4, heads=2, activation="none")
    near = Neighbours(graph().edges, "mean")
    x = graph().features
    variables = module.init(jax.random.key(0), x, train=False)
    params = variables["params"]
    flat = {**params, "to": 0 * params["to"], "from": 0 * params["from"]}
    found = module.apply({"params": flat}, x, train=False, neighbours=near)
    np.testing.assert_allclose(found, near.join(x @ params["kernel"]), atol=1e-5)


def test_a_layer_may_start_near_the_identity_where_it_is_as_wide_as_its_input():
    options = {"activation": "none", "skip": True}
    near, usual = (
        gcn(widths=(40,), identity=identity, **options)[0] for identity in (True, False)
    )
    x, key = np.random.default_rng(0).normal(size=(200, 40)), jax.random.key(0)
    (made, variables), (other, plain) = (
        layer.init_with_output(key, x, train=False) for layer in (near, usual)
    )
    assert np.std(made - x) < 0.2 * np.std(x)
    assert np.std(other - x) > np.std(x)
    np.testing.assert_array_equal(variables["params"]["skip"], np.eye(40))
    kernels = [np.std(each["params"]["kernel"]) for each in (variables, plain)]
    np.testing.assert_allclose(kernels[0], kernels[1] / 10, rtol=1e-5)
    narrow = near.init(key, x[:, :30], train=False)["params"]["skip"]
    np.testing.assert_array_equal(
        narrow, usual.init(key, x[:, :30], train=False)["params"]["skip"]
    )
    with pytest.raises(ValueError, match="identity=True needs skip=True"):
        gcn(widths=(4,), identity=True)


def test_the_loss_without_labels_is_its_formula():
    draw = np.random.default_rng(0)
    u, v, p, q = draw.normal(size=(4, 9, 3)).astype(np.float32)
    terms = loss_terms(*map(jnp.asarray, (u, v, p, q)))
    np.testing.assert_allclose(
        terms["agreement"], ((u - p) ** 2).mean() + ((v - q) ** 2).mean(), rtol=1e-5
    )
    spread = others = 0.0
    for x in (u, v):
        c = np.cov(x.T)
        spread += ((np.diag(c) - 1) ** 2).sum() / 3
        others += (c**2).sum() / 3 - (np.diag(c) ** 2).sum() / 3
    np.testing.assert_allclose(terms["variance"], spread, rtol=1e-4)
    np.testing.assert_allclose(terms["covariance"], others, rtol=1e-4)


def test_patience_counts_epochs_without_a_lower_loss():
    rule = patient(2, 0.1)
    memory, stops = rule.start(), []
    for epoch, loss in enumerate([1.0, 0.95, 0.5, 0.49, 0.48, 0.1], 1):
        memory, stop = rule.decide((), memory, jnp.asarray(loss), jnp.asarray(epoch))
        stops.append(bool(stop))
    assert stops == [False, False, False, False, True, False]


def test_a_layer_that_has_stopped_changes_no_more_and_says_so():
    algorithm = lgcn(parts_of(steps=1), patience=1, margin=1e9)
    data = split()
    first, recorded = train(algorithm, data, steps=2)
    later, _ = train(algorithm, data, steps=20)
    assert [float(x) for x in recorded[0][0]["training"]] == [1, 1]
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(later), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_controller_learns_from_the_actions_that_were_played():
    algorithm = l2gcn(parts_of(epochs=(3, 30, 30), steps=3), earliest=5)
    network, recorded = train(algorithm, split(), steps=30)
    rounds = recorded[0][2]
    for epochs in (rounds["epochs_0"], rounds["epochs_1"]):
        assert all(float(x) in (10.0, 20.0, 30.0) for x in epochs)
    np.testing.assert_allclose(
        rounds["cost"][0],
        rounds["loss"][0] + 1e-4 * (rounds["epochs_0"][0] + rounds["epochs_1"][0]),
        rtol=1e-5,
    )
    np.testing.assert_allclose(rounds["baseline"][0], rounds["cost"][0], rtol=1e-5)
    assert len(network.layers.stages) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lgcn(parts_of(stages=mlp(widths=(4,)))), "use model.name=gcn$"),
        (lambda: lgcn(parts_of(), rule="max"), "rule must be one of"),
        (lambda: lgcn(parts_of(stages=gcn(skip=True))), "model.skip: this algorithm"),
        (lambda: lgcn(parts_of(epochs=(1, 2, 3))), "3 numbers for 2 phases"),
        (lambda: graph_end_to_end(parts_of(stages=gat()), fanout=2), "=gcn$"),
        (lambda: graph_end_to_end(parts_of(), dropout=1.0), "dropout must be below 1"),
        (lambda: lrgi(parts_of(), samples=1), "samples must be 0 for all, or ≥ 2"),
        (
            lambda: l2gcn(parts_of(epochs=(1, 1, 1), steps=9), samples=8),
            "samples must be ≥ 9, the steps of an epoch, got 8; raise it or batch_size",
        ),
        (lambda: sgc(parts_of(), hops=-1), "hops must be ≥ 0, got -1"),
        (lambda: gat(widths=(6,)), "widths must be multiples of the 4 heads"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_algorithm_for_arrays_refuses_nodes_in_a_line():
    example = split().take(slice(2)).batch()
    with pytest.raises(ValueError, match="for nodes of a graph use lgcn"):
        sequential(parts_of()).phases[0].init(jax.random.key(0), (), example)


def test_samples_that_are_no_nodes_are_refused_in_a_line():
    batch = split().take(slice(2)).batch()._replace(common={"mean": jnp.zeros(3)})
    with pytest.raises(ValueError, match="dataset.name are none; see docs/graphs.md"):
        lgcn(parts_of()).phases[0].init(jax.random.key(0), (), batch)


@pytest.mark.parametrize("name", ["whole", "sampled", "layer"])
def test_the_optimizer_is_told_how_many_updates_there_are(name):
    told = []

    def optimizer(epochs, per_epoch=3):
        told.append(epochs * per_epoch)
        return optax.sgd(0.1)

    parts = parts_of(optimizer=optimizer, epochs=7)
    if name == "layer":
        stages = gcn(widths=(4, 4), activation="elu", skip=True)
        lrgi(parts._replace(epochs=(7, 7, 5), stages=stages))
        assert told == [7, 7, 5 * 3]  # layers see the whole graph, the probes batches
    else:
        graph_end_to_end(parts, fanout=3 if name == "sampled" else 0)
        assert told == [21 if name == "sampled" else 7]


def test_end_to_end_a_graph_network_does_not_ask_for_the_objective():
    class Without(type(parts_of())):
        @property
        def objective(self):
            raise AssertionError

    graph_end_to_end(Without(*parts_of()))
