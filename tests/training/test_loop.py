"""What the loop owns, whatever a step does: tried with layers of a line each."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import (
    CLASSES,
    experiment,
    layer,
    lines,
    stop_at,
    vectors,
    without_seconds,
)

from dib_jax.training import splits as reading
from dib_jax.training.experiment import Cache
from dib_jax.training.records import NonFiniteError
from dib_jax.training.train import train
from dib_jax.training.workdir import read_inputs

pytestmark = pytest.mark.once


def flipped(key, samples, times):
    """Half of the vectors with their sign changed."""
    x = samples["features"]
    signs = jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1)), 1.0, -1.0)
    return {**samples, "features": x * signs}


class Watch:
    """Sees every moment, and holds copies."""

    def __init__(self):
        self.moments = []

    def __call__(self, made):
        def observe(moment):
            network = jax.tree.map(np.copy, moment.network)
            self.moments.append(moment._replace(network=network))

        return observe


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run of two phases with two and three epochs, and its moments."""
    workdir, watch = tmp_path_factory.mktemp("loop") / "run", Watch()
    return workdir, train(experiment(), workdir, observer=watch), watch.moments


def test_each_phase_has_its_number_of_epochs(watched):
    workdir, trained, _ = watched
    entries = trained.results["stages"]
    assert [(e["stage"], e["epochs"]) for e in entries] == [(0, 2), (1, 3)]
    assert [(line["stage"], line["epoch"]) for line in lines(workdir)][::2] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    first, last = entries
    assert trained.results["test"] == last["test"] == trained.test[-1]
    assert first["test"] == trained.test[0]


def test_another_seed_gives_another_network(watched, tmp_path):
    other = train(experiment(seed=1), tmp_path / "run")
    assert other.results["validation"] != watched[1].results["validation"]
    noise = [line.get("noise") for line in lines(tmp_path / "run")]
    assert noise[0] != lines(watched[0])[0]["noise"]


def test_an_observer_sees_every_epoch_and_the_untrained_network(watched):
    _, trained, moments = watched
    assert [moment.epoch for moment in moments] == [0, 1, 2, 3, 4, 5]
    assert [moment.trained for moment in moments] == [
        (0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3),
    ]  # fmt: skip
    networks = [moment.network for moment in moments]
    # A complete one, of what has not begun with the initial weights.
    assert {len(network) for network in networks} == {2}
    for network in networks[1:3]:
        np.testing.assert_array_equal(network[1], networks[0][1])
    changed = [(a[0] != b[0]).any() for a, b in itertools.pairwise(networks)]
    assert changed[0]
    assert changed[2:] == [False] * 3
    # At the end of a phase, and later, with the weights that stay.
    np.testing.assert_array_equal(networks[2][0], trained.network[0])
    chex.assert_trees_all_equal(networks[-1], jax.device_get(trained.network))


def test_a_run_that_goes_on_shows_what_is_left_to_the_same_bits(watched, tmp_path):
    stop_at(3, experiment(), tmp_path, observer=Watch())
    watch = Watch()
    train(experiment(), tmp_path, observer=watch)
    assert [moment.epoch for moment in watch.moments] == [4, 5]
    for again, moment in zip(watch.moments, watched[2][-2:], strict=True):
        chex.assert_trees_all_equal(again, moment)


def scored(scores):
    """A phase whose outputs are right for a known share of all classes."""
    plain = layer(0)

    def step(state, network, batch, key):
        return {**state, "step": state["step"] + 1}, {0: {"loss": jnp.zeros(())}}

    def read(state, network):
        return (*network, state["weights"] * 0 + state["step"])

    def outputs(network, batch):
        epoch = network[0][0, 0].astype(int) // 5 - 1
        wrong = jnp.arange(len(batch.inputs)) >= jnp.array(scores)[epoch]
        label = jnp.arange(len(batch.inputs)) % CLASSES
        return (jax.nn.one_hot((label + wrong) % CLASSES, CLASSES),)

    return layer(0, len(scores), init=plain.init, step=step, read=read, outputs=outputs)


@pytest.mark.parametrize(
    ("scores", "best"), [((3, 7, 5), 2), ((7, 3, 7, 2), 3), ((1, 2), 2)]
)
def test_the_epoch_that_was_best_on_validation_is_taken(tmp_path, scores, best):
    """At equal scores the later one."""
    trained = train(experiment(scored(scores)), tmp_path)
    (entry,) = trained.results["stages"]
    assert entry["best_epoch"] == best
    assert entry["validation"]["accuracy"] == pytest.approx(max(scores) / 13)
    np.testing.assert_array_equal(trained.network[0], 5 * best)


def test_without_a_validation_split_the_last_epoch_counts(tmp_path):
    made = experiment(dataset=vectors(validation=0))
    trained = train(made, tmp_path)
    assert trained.results["validation"] == {}
    entries = trained.results["stages"]
    assert [entry["best_epoch"] for entry in entries] == [2, 3]
    assert {entry["split"] for entry in lines(tmp_path)} == {"train"}


def test_a_phase_without_outputs_is_validated_by_the_algorithms_last_ones(
    watched, tmp_path
):
    made = experiment(layer(0, outputs=None), layer(1, 3, outputs=None))
    trained = train(made, tmp_path)
    chex.assert_trees_all_equal(trained.network, watched[1].network)
    for one, other in zip(lines(tmp_path), lines(watched[0]), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_what_terms_show_to_be_wrong_is_said_and_noted(tmp_path, capfd):
    def notices(means):
        return {"lost": "it has lost its way"} if means["loss"] < 100 else {}

    made = experiment(layer(0, notices=notices), layer(1))
    entries = train(made, tmp_path).results["stages"]
    assert entries[0]["lost"] is True
    assert "lost" not in entries[1]
    said = capfd.readouterr().err
    for epoch in (1, 2):
        assert said.count(f"stage 0, epoch {epoch}: it has lost its way") == 1


def test_a_term_that_is_not_finite_leaves_the_last_good_checkpoint(watched, tmp_path):
    plain = layer(1, 3)

    def step(state, network, batch, key):
        after, terms = plain.step(state, network, batch, key)
        loss = jnp.where(state["step"] == 7, jnp.nan, terms[1]["loss"])
        return after, {1: {**terms[1], "loss": loss}}

    with pytest.raises(
        NonFiniteError, match=r"stage 1, epoch 2, step 3 of the epoch: loss is nan"
    ):
        train(experiment(layer(0), layer(1, 3, step=step)), tmp_path)
    assert not (tmp_path / "results.json").exists()
    assert {line["stage"] for line in lines(tmp_path)} == {0, 1}
    resumed = train(experiment(), tmp_path)
    chex.assert_trees_all_equal(resumed.network, watched[1].network)
    assert without_seconds(lines(tmp_path)) == without_seconds(lines(watched[0]))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no config.json"):
        train(experiment(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("phases", "exits"),
    [
        ((layer(0), layer(1, exits=(0,))), r"\(0, 0\)"),
        ((layer(0, exits=(0, 1)), layer(1, exits=(2,))), r"\(0, 1, 2\)"),
    ],
)
def test_exits_that_do_not_match_what_is_predicted_are_refused(tmp_path, phases, exits):
    message = "algorithm.name: 'layers' predicts 2 outputs, and its phases train the ex"
    with pytest.raises(ValueError, match=rf"{message}its {exits}"):
        train(experiment(*phases), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_phase_needs_an_exit(tmp_path):
    with pytest.raises(ValueError, match="a phase without exits; each needs one"):
        train(experiment(layer(0, exits=()), layer(1)), tmp_path / "run")


def test_predict_gives_a_tuple(tmp_path):
    one = experiment(layer(0))
    algorithm = one.algorithm._replace(predict=lambda network, batch: batch.inputs)
    with pytest.raises(
        ValueError, match=r"predict of 'layers' returns .*a tuple of arr"
    ):
        train(one._replace(algorithm=algorithm), tmp_path / "run")


def changed(state, network, batch, key):
    state, terms = layer(0).step(state, network, batch, key)
    return {**state, "step": state["step"] + 0.5}, terms


def grown(state, network, batch, key):
    state, terms = layer(0).step(state, network, batch, key)
    return {**state, "more": state["step"]}, terms


def with_vector(state, network, batch, key):
    state, terms = layer(0).step(state, network, batch, key)
    return state, {0: {**terms[0], "v": jnp.zeros(3)}}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (changed, r"makes float32\[\] of state\['step'\], which was int32\[\]"),
        (grown, "returns a state of another structure than it got"),
        (with_vector, r"term 'v' has the shape \(3,\); it must be a scalar"),
        (lambda *given: (*layer(0).step(*given), 1), "must return .state, terms"),
    ],
)
def test_a_step_that_breaks_the_contract_is_told_how(tmp_path, step, message):
    with pytest.raises(ValueError, match=f"'layers' has a step .*{message}"):
        train(experiment(layer(0, step=step)), tmp_path / "run")


def test_a_phase_without_targets_trains_to_its_last_epoch_and_has_its_lines(tmp_path):

    def step(*given):
        state, terms = layer(0).step(*given)
        return state, {7: terms[0]}

    # The second layer alone predicts.
    silent = layer(0, 2, exits=(7,), predicts=False, step=step)
    one = experiment(silent, layer(1, 3))
    predict = one.algorithm.predict
    algorithm = one.algorithm._replace(
        predict=lambda network, batch: predict(network, batch)[1:]
    )
    trained = train(one._replace(algorithm=algorithm), tmp_path / "run")
    seen = [row["split"] for row in lines(tmp_path / "run") if row["stage"] == 7]
    assert seen == ["train", "train"]
    (entry,) = trained.results["without_outputs"]
    assert (entry["stage"], entry["best_epoch"], entry["validation"]) == (7, 2, {})
    assert [entry["stage"] for entry in trained.results["stages"]] == [1]
    assert len(trained.test) == 1


# A phase's entrance -------------------------------------------------------------------


def entering(seen, label=2):
    """Takes samples of the classes before one."""

    def enter(network, data):
        seen.append((len(network), len(data)))
        return data.take(np.flatnonzero(np.asarray(data.samples["labels"]) < label))

    return enter


@pytest.mark.parametrize("place", ["auto", "none"])
def test_a_phase_may_take_some_of_the_samples_and_the_next_one_has_all(tmp_path, place):
    seen, counts = [], []

    def watching(number):
        plain = layer(number)

        def step(state, network, batch, key):
            state, terms = plain.step(state, network, batch, key)
            return state, {number: {**terms[number], "top": batch.targets.max()}}

        return {"step": step}

    phases = (
        layer(0),
        layer(1, enter=entering(seen), **watching(1)),
        layer(2, **watching(2)),
    )
    made = experiment(*phases, cache=Cache(place))
    trained = train(made, tmp_path / "run")
    # Once for each split, at the start of its phase.
    assert seen == [(1, 40), (1, 13)]
    record = lines(tmp_path / "run")
    counts = {line["stage"]: line["step"] // line["epoch"] for line in record}
    assert counts == {0: 5, 1: 3, 2: 5}
    tops = {line["stage"]: line["top"] for line in record if "top" in line}
    assert (tops[1], tops[2]) == (1, 2)
    for done in (3, 5):
        stop_at(done, made, tmp_path / "stopped")
    resumed = train(made, tmp_path / "stopped")
    chex.assert_trees_all_equal(resumed.network, trained.network)


def test_a_phase_with_fewer_samples_than_a_batch_takes_them_all(tmp_path):
    made = experiment(layer(0), layer(1, enter=lambda n, data: data.take(slice(5))))
    train(made, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [5, 5, 10, 10, 1, 1, 2, 2]


def test_a_phase_is_told_how_many_updates_its_epochs_make(tmp_path):
    def paced(updates):
        plain = layer(1)

        def step(state, network, batch, key):
            state, terms = plain.step(state, network, batch, key)
            return state, {1: {**terms[1], "planned": jnp.float32(updates)}}

        return plain._replace(step=step)

    second = layer(1, enter=lambda n, data: data.take(slice(17)), paced=paced)
    train(experiment(layer(0), second), tmp_path)
    planned = [line["planned"] for line in lines(tmp_path) if "planned" in line]
    assert planned == [2, 2]  # of 17 samples, 8 at a time


def test_a_phase_without_a_sample_is_named(tmp_path):
    made = experiment(layer(0), layer(1, enter=lambda n, data: data.take(slice(0))))
    with pytest.raises(ValueError, match="stage 1: .* no training sample"):
        train(made, tmp_path)


# Copies -------------------------------------------------------------------------------


def renewing(place):
    cache = Cache(place, copies=1, renew=2)
    return experiment(layer(0), layer(1, 4), augment=flipped, cache=cache)


def renewals(monkeypatch):
    """The training samples of every copy from now on, as they are stored."""
    seen, stored = [], reading.store

    def watched(made, phase, *arguments, augment, **options):
        result = stored(made, phase, *arguments, augment=augment, **options)
        if augment and phase:
            seen.append(np.array(result.samples["features"]))
        return result

    monkeypatch.setattr(reading, "store", watched)
    return seen


def test_copies_are_drawn_anew_after_so_many_epochs_and_the_run_goes_on_to_the_same(
    tmp_path, monkeypatch
):
    drawn = renewals(monkeypatch)
    whole = train(renewing("device"), tmp_path / "whole")
    assert len(drawn) == 2  # four epochs of the one phase that has others before it
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(abs(drawn[0]), abs(drawn[1]))
    for done in (3, 4, 5):  # within a period, at its end, after the renewal
        stop_at(done, renewing("device"), tmp_path / "run")
    drawn.clear()
    resumed = train(renewing("device"), tmp_path / "run")
    assert len(drawn) == 1
    chex.assert_trees_all_equal(resumed.network, whole.network)
    in_files = train(renewing("file"), tmp_path / "files")
    np.testing.assert_array_equal(drawn[-1], drawn[0])
    chex.assert_trees_all_close(in_files.network, whole.network, rtol=1e-5)
    assert not (tmp_path / "files" / "cache").exists()


def counted(key, samples, times):
    """Features that say how often they were augmented before."""
    return {**samples, "features": 0 * samples["features"] + times}


@pytest.mark.parametrize(
    ("cache", "seen"),
    [(Cache(), [0, 1, 2, 3]), (Cache(copies=3), [0, 1, 2, 0]),
     (Cache(copies=1, renew=2), [0, 0, 1, 1])],
)  # fmt: skip
def test_an_augmentation_is_told_how_often_it_was_drawn_before(tmp_path, cache, seen):
    plain = layer(1, 4)

    def step(state, network, batch, key):
        state, terms = plain.step(state, network, batch, key)
        common = batch.common
        times = batch.inputs * common["deviation"] + common["mean"]
        return state, {1: {**terms[1], "times": times.mean()}}

    phases = layer(0, 1), plain._replace(step=step)
    train(experiment(*phases, augment=counted, cache=cache), tmp_path)
    record = [line for line in lines(tmp_path) if line["split"] == "train"]
    times = [line["times"] for line in record if line["stage"] == 1]
    np.testing.assert_allclose(times, seen, atol=1e-5)


def test_augmentation_without_copies_is_new_at_every_epoch(tmp_path):
    seen = []
    plain = layer(0)

    def step(state, network, batch, key):
        state, terms = plain.step(state, network, batch, key)
        return state, {0: {**terms[0], "sum": batch.inputs.sum()}}

    made = experiment(layer(0, 3, step=step), augment=flipped, batch_size=40)
    train(made, tmp_path)
    seen = [line["sum"] for line in lines(tmp_path) if line["split"] == "train"]
    assert len(set(seen)) == 3


def test_what_a_network_must_know_of_its_inputs_is_written(watched):
    workdir, trained, _ = watched
    inputs = read_inputs(workdir)
    assert inputs["kind"] == "vectors"
    assert inputs["class_names"] == ["a", "b", "c"]
    assert inputs["samples"] == {
        "features": {"shape": [5], "dtype": "float32"},
        "labels": {"shape": [], "dtype": "int32"},
    }
    for name, values in inputs["common"].items():
        common = np.asarray(values, np.float32)
        np.testing.assert_array_equal(common, trained.experiment.common[name])
