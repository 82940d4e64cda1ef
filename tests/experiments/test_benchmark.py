"""The benchmark command: its mistakes, and that a table can be read again."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dib_jax.commands import benchmark, command_line
from dib_jax.commands.benchmarks import (
    compile,
    faults,
    gpu,
    linear,
    memory,
    overhead,
    pictures,
    scaling,
    table,
    timing,
    torch_step,
    training,
    training_peer,
)
from dib_jax.commands.benchmarks.steps import compile_step, lower_step, run_steps

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]
TINY = "cnn2w4"


@pytest.fixture
def small(monkeypatch):
    """Of the network `mlp` only two stages of four units, on a loss that is quick."""
    experiment_of = training.experiment_of

    def made(network, batch_size, fields):
        usual = {"model.widths": "4,4", "objective.name": "cross_entropy"}
        return experiment_of(network, batch_size, {**usual, **fields})

    monkeypatch.setattr(training, "experiment_of", made)


def test_every_round_has_all_that_is_compared_and_no_order_is_for_ever():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = timing.paired(functions, seconds=0.0)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert rounds[0] == "abc", "first, one run each to compile"
    assert all(sorted(round) == ["a", "b", "c"] for round in rounds)
    assert len(set(rounds[1:])) > 1
    assert [len(each) for each in times.values()] == [3, 3, 3]


def test_a_disturbed_round_leaves_the_ratio_as_it_is():
    times = {"exact": [2.0, 900.0, 4.0], "ours": [1.0, 450.0, 2.0]}
    rows = timing.compared(times, "exact", {"n": 8})
    assert [row["× exact"] for row in rows] == [1, 0.5]
    assert rows[1] == {
        "n": 8,
        "what": "ours",
        "ms": 2.0,
        "least ms": 1.0,
        "× exact": 0.5,
        "rounds": 3,
    }


def test_a_table_has_the_columns_of_all_its_rows(tmp_path):
    rows = [{"what": "a", "ms": 1.0}, {"what": "b", "seconds": 2.5}]
    table.write(tmp_path, "mixed", rows, "command", note="", plot=lambda *_: None)
    text = (tmp_path / "benchmark_mixed.md").read_text()
    assert "| what | ms | seconds |" in text
    assert "| b |  | 2.5 |" in text


def test_a_table_is_written_as_data_as_text_and_as_a_picture(tmp_path):
    rows = [
        {"n": n, "alpha": alpha, "what": what, "ms": 1.5 * n}
        for n in (8, 16)
        for alpha in (1.01, 2.0)
        for what in ("ours", "theirs")
    ]
    table.write(
        tmp_path,
        "speed",
        rows,
        "python -m experiments.benchmark speed",
        note="ms: median.",
        plot=table.plot_times,
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"benchmark_speed.{end}" for end in ("json", "md", "png")]
    record = json.loads((tmp_path / "benchmark_speed.json").read_text())
    assert {"hardware", "versions", "command", "rows"} == record.keys()
    assert record["rows"] == rows
    assert "| 16 | 2 | theirs | 24 |" in (tmp_path / "benchmark_speed.md").read_text()


def test_before_there_are_two_sizes_nothing_is_drawn(tmp_path):
    rows = [{"n": 8, "what": "ours", "ms": 1.5}]
    table.plot_times(tmp_path / "speed.png", rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one benchmark of information, estimation, training, memory, scali"),
        (["informatoin"], "got informatoin"),
        (["information", "estimation"], "got information estimation"),
        (["information", "--oot=x"], "unknown flag --oot"),
        (["information", "--networks=mlp"], "--networks means nothing to the benchma"),
        (["training", "--networks=mlp,vgg12"], "--networks: got 'vgg12'; must be some"),
        (["training", "--batch_sizes=x"], "--batch_sizes: got 'x'; must be a tuple of"),
        (["training", "--algorithms=paralel"], "--algorithms: got 'paralel'; must be"),
        (["training", "--peer=keras"], "--peer: got 'keras'; must be torch"),
        (["memory", "--peer=torch"], "--peer means nothing to the benchmark memory"),
        (
            ["training", "--peer=torch", "--algorithms=parallel"],
            "--algorithms means nothing to the benchmark training with --peer",
        ),
        (
            ["training", "--peer=torch", "--dtypes=float16"],
            "--dtypes: got 'float16'; must be some of float32, bfloat16",
        ),
        (["scaling", "--quick=1"], "--quick: got '1'; must be True or False"),
        (["overhead", "--seconds=x"], "--seconds: got 'x'; must be a number"),
        (["gpu"], "the benchmark gpu needs a GPU, and jax runs on 'cpu' here"),
        (["compile", "--only=vgg11,vgg12"], "--only: got 'vgg12'; must be some of cif"),
        (["compile", "--only=cora_lgcn"], "--only: got 'cora_lgcn'; must be some of"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status = command_line.main(
        benchmark.main, command="experiments.benchmark", arguments=arguments
    )
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_compilers_figures_need_no_step(tmp_path, monkeypatch, small):
    def must_not_run(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(training, "run_steps", must_not_run)
    benchmark.main(
        ["memory", "--networks=mlp", "--batch_sizes=2,4", f"--out={tmp_path}"]
    )
    record = json.loads((tmp_path / "benchmark_memory.json").read_text())
    assert (tmp_path / "benchmark_memory.png").stat().st_size > 1000
    found = {(row["batch"], row["algorithm"]): row for row in record["rows"]}
    assert len(found) == len(record["rows"]) == 8
    for size in (2, 4):
        whole = found[size, "end_to_end"]
        assert whole["× temp MiB"] == whole["× GFLOP"] == 1
        assert found[size, "sequential"]["steps"] == 2
        assert found[size, "parallel"]["steps"] == 1
    assert not any("ms" in row for row in record["rows"])


def test_memory_is_that_of_plain_convolutions():
    (rows,) = memory.measure((TINY,), (2,), ("sequential",))
    assert [row["algorithm"] for row in rows] == ["end_to_end", "sequential"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "dib_jax.models.convolution.direct_convolutions", contextlib.nullcontext
        )
        (patches,) = memory.measure((TINY,), (2,), ("end_to_end",))
    assert patches[0]["temp MiB"] > 1.5 * rows[0]["temp MiB"]


def test_stages_that_are_alike_are_one_program(small):
    widths = {"model.widths": "4,4,4"}
    steps = training.algorithm_steps("sequential", "mlp", 2, **widths)
    first, *others = [lower_step(step).as_text() for step in steps]
    assert others[0] == others[1] != first


def test_stages_that_share_a_program_are_each_run(small):
    steps = training.algorithm_steps(
        "sequential", "mlp", 2, **{"model.widths": "4,4,4"}
    )
    seen = {}
    programs = [compile_step(step, seen)[0] for step in steps]
    assert len(seen) == 2
    run = run_steps(programs, steps)
    run()
    run()


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs libtpu.*pip install -e '\.\[tpu\]'"):
        next(compile.measure())


def test_a_config_compiles_for_one_described_chip_and_for_four(tmp_path):
    pytest.importorskip("libtpu")
    arguments = ["--topology=v5e:2x2", "--only=mnist_mlp", f"--out={tmp_path}"]
    programs = tmp_path / "programs"

    def rows():
        # In a process of its own: libtpu keeps what it was told at its first start.
        subprocess.run(
            [sys.executable, "-m", "experiments.benchmark", "compile", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": str(programs),
            },
            capture_output=True,
            check=True,
        )
        return json.loads((tmp_path / "benchmark_compile.json").read_text())["rows"]

    one, four = rows()
    assert (one["chips"], four["chips"]) == (1, 4)
    # Three stages, of which the last two are alike.
    assert (one["programs"], one["different"]) == (3, 2)
    # The first stage's weights and their momentum: 784 × 512 numbers of 4 bytes each.
    assert one["peak MiB"] > 2 * 784 * 512 * 4 / 2**20
    assert one["of program"] == 0
    # The products are divided; the Gram's decomposition is done by every chip.
    assert 0.2 * one["GFLOP"] < four["GFLOP"] < 0.4 * one["GFLOP"]
    assert (tmp_path / "benchmark_compile.png").stat().st_size > 1000
    # A second start reads what the compiler has said.
    for path in (programs / "described").iterdir():
        figures = json.loads(path.read_text())
        figures["peak_bytes"] += 2**30
        path.write_text(json.dumps(figures))
    assert [row["peak MiB"] for row in rows()] == pytest.approx(
        [one["peak MiB"] + 1024, four["peak MiB"] + 1024]
    )


def test_steps_by_all_algorithms_are_timed_against_end_to_end(
    tmp_path, monkeypatch, small
):
    monkeypatch.setattr(
        training, "paired", lambda runs, seconds: timing.paired(runs, seconds=0.0)
    )
    (rows,) = training.measure(("mlp",), (2,))
    assert [row["algorithm"] for row in rows] == list(training.ALGORITHMS)
    assert rows[0]["× time"] == 1
    assert {row["rounds"] for row in rows} == {3}
    assert all(row["ms"] > 0 for row in rows)
    training.plot(tmp_path / "ratios.png", rows)


def test_without_the_peer_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install torch$"):
        next(training_peer.measure((TINY,), (2,), peer="torch"))


def test_a_network_that_the_peer_has_no_form_of_is_refused(small):
    experiment = training.experiment_of("mlp", 2, {"algorithm.name": "end_to_end"})
    with pytest.raises(ValueError, match="--networks: mlp .* no Dense.*; must be made"):
        training_peer.described("mlp", experiment)


def residual():
    """A stem and three residual blocks, on four pictures of four classes."""
    fields = {"algorithm.name": "end_to_end", "optimizer.weight_decay": "0.01"}
    fields |= {"model.depth": "8", "model.width": "4"}
    return training.experiment_of("resnet18", 4, fields)


def test_parameters_and_work_are_those_of_the_layers():
    parameters = 3 * 4 * 9 + 2 * 4  # the stem and its norm
    work = 32**2 * 3 * 4 * 9
    inputs, side = 4, 32
    for width, stride in ((4, 1), (8, 2), (16, 2)):
        side //= stride
        short = inputs * width if stride > 1 else 0
        weights = 9 * inputs * width + 9 * width * width + short
        parameters += weights + (6 if short else 4) * width  # of two or three norms
        work += side**2 * weights
        inputs = width
    features = 4 * 16  # a grid of 2 × 2
    parameters += features * 4 + 4
    work += features * 4
    found = training_peer.size_of(residual())
    assert found == {"parameters": parameters, "flops": 4 * 2 * work}


def test_what_is_not_the_same_work_is_not_compared():
    own = {"parameters": 100, "flops": 10**6}
    training_peer.check_same_work("x", own, {"parameters": 100, "flops": 10**6 + 1})
    for what, number in (("parameters", 101), ("flops", 2 * 10**6)):
        with pytest.raises(ValueError, match=f"x are not .* {number}$"):
            training_peer.check_same_work("x", own, {**own, what: number})


def test_both_kinds_of_time_are_compared_within_a_round(tmp_path):
    times = {"ours": [(4.0, 2.0), (8.0, 2.0)], "PyTorch": [(2.0, 1.0), (4.0, 2.0)]}
    ours, theirs = training_peer.rows_of(times, {"network": "x"})
    assert (ours["ms"], ours["× PyTorch"]) == (6, 2)
    assert (ours["processor ms"], ours["× PyTorch, processor"]) == (2, 1.5)
    assert theirs["× PyTorch"] == theirs["× PyTorch, processor"] == 1
    rows = [{**row, "batch": 2, "dtype": "float32"} for row in (ours, theirs)]
    training_peer.plot(tmp_path / "bars.png", rows)
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_a_timed_step_comes_right_after_another():
    # The first step after a pause gets its memory anew; a step of training does not.
    slow = iter([0.2, 0.0])
    wall, _ = torch_step.timed(lambda: time.sleep(next(slow)))
    assert wall < 100
    assert next(slow, None) is None


def test_pytorch_takes_the_same_steps():
    torch = pytest.importorskip("torch")
    experiment = residual()
    (phase,), empty = experiment.phases, experiment.algorithm.network
    batch = experiment.data(experiment.dataset.train).batch()
    states = jax.jit(phase.init)(experiment.key, empty, batch)
    work = training_peer.described("resnet18", experiment)
    network = torch_step.build(work)
    # Both name the layers of a stage in the order in which they are applied.
    own = [
        torch.tensor(np.asarray(kernel).transpose())
        for stage in (*states[0].params, states[0].head["params"])
        for kernel in jax.tree.leaves(stage)
        if kernel.ndim > 1
    ]
    theirs = [one for one in network.parameters() if one.ndim > 1]
    with torch.no_grad():
        for one, other in zip(theirs, own, strict=True):
            # (o, i, columns, rows) → (o, i, rows, columns)
            one.copy_(other.transpose(-1, -2) if other.ndim == 4 else other)
        network[-1].bias.zero_()
        # Features of a map go channel by channel there, and pixel by pixel with us.
        dense = network[-1].weight
        dense.copy_(dense.reshape(len(dense), 4, -1).transpose(1, 2).flatten(1))
    images, labels = (
        torch.tensor(np.asarray(one)) for one in (batch.inputs, batch.targets)
    )
    images, step = images.permute(0, 3, 1, 2).contiguous(), jax.jit(phase.step)
    update = torch_step.optimizer(network, work)
    seen = []
    for _ in range(3):
        states, terms = step(states, empty, batch, experiment.key)
        loss = torch_step.loss(network, images, labels.long(), "float32")
        update.zero_grad()
        loss.backward()
        update.step()
        (own_terms,) = terms.values()
        seen.append(loss.item())
        assert float(own_terms["task_loss"]) == pytest.approx(seen[-1], rel=1e-3)
    assert seen[2] != pytest.approx(seen[0], rel=0.1)


def test_a_step_of_both_is_timed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(
        training_peer, "in_turn", lambda runs, seconds: timing.in_turn(runs, seconds=0)
    )
    (rows,) = training_peer.measure((TINY,), (10,), peer="torch")
    assert [row["what"] for row in rows] == ["ours", "PyTorch"]
    assert all(row["ms"] > 0 and row["processor ms"] > 0 for row in rows)
    assert "channels" in rows[1]["form"]


def test_growth_is_told_and_drawn_for_depth_batch_and_width(tmp_path, monkeypatch):
    asked = []

    def compare(name, batch_size, algorithms, *, timed):
        asked.append((name, batch_size, timed))
        row = {"network": name, "temp MiB": 1.0 * batch_size}
        return [{**row, "algorithm": algorithm} for algorithm in algorithms]

    monkeypatch.setattr(scaling, "compare", compare)
    rows = [row for more in scaling.measure() for row in more]
    assert ("cnn32w32", 128, False) in asked
    assert ("cnn8w32", 1024, False) in asked
    assert ("cnn8w128", 128, False) in asked
    assert not any(timed for *_, timed in asked)
    grown = [row["to"] for row in rows if row["algorithm"] == "parallel"]
    assert grown == [4, 8, 16, 32, 32, 128, 512, 1024, 16, 32, 64, 128]
    scaling.plot(tmp_path / "growth.png", rows)


def test_the_cost_of_the_term_and_of_the_engine_are_set_against_a_step(
    tmp_path, monkeypatch, small
):
    monkeypatch.setattr(overhead, "_TERMS", {"whole": {}, "now and then": {"every": 4}})
    monkeypatch.setattr(overhead, "_EMPTY", {"samples": 64, "epochs": 3})
    rows = [row for more in overhead.measure(("mlp",), (4,), 0.0) for row in more]
    without = {r["stage"]: r["ms"] for r in rows if r["what"] == "without the term"}
    assert without.keys() == {0, 1, "all"}
    assert without["all"] == pytest.approx(sum(without[stage] for stage in range(2)))
    ratio = "× without the term"
    whole = {row["stage"]: row for row in rows if row["what"] == "whole"}
    assert whole["all"][ratio] == pytest.approx(whole["all"]["ms"] / without["all"])
    dispatch = rows[-1]
    assert dispatch["stage"] == "quickest"
    assert dispatch["ms"] > 0
    keys = {"network", "batch", "stage", "what", "ms", ratio}
    assert all(row.keys() >= keys for row in rows)
    overhead.plot(tmp_path / "terms.png", rows)


def test_pictures_a_second_are_counted_by_every_algorithm(tmp_path, small):
    rows = gpu.throughput("mlp", 2, seconds=0.0)
    assert [row["algorithm"] for row in rows] == [
        "end_to_end",
        "parallel",
        "sequential",
    ]
    assert rows[0]["× end_to_end"] == 1
    assert all(row["pictures a second"] > 0 for row in rows)
    gpu.plot(tmp_path / "rates.png", rows)


def test_the_time_to_a_target_is_that_of_the_first_epoch_there():
    accuracies = (0.5, 0.95, 0.93)
    lines = [
        {"stage": stage, "split": split, "seconds": 2.0, "accuracy": accuracy + bonus}
        for accuracy in accuracies
        for stage, bonus in ((0, -0.4), (1, 0.0))
        for split in ("train", "validation")
    ]
    assert gpu.seconds_to(lines, 1, 0.94) == (6.0, 4.0)
    assert gpu.seconds_to(lines, 0, 0.94) == (6.0, None)


def test_the_map_of_depth_has_one_layer_for_its_unit(tmp_path, monkeypatch):
    for name, value in {
        "_MOST": 8,
        "_INPUTS": 4,
        "_SEEDS": 2,
        "_RATES": (1.0,),
    }.items():
        monkeypatch.setattr(linear, name, value)
    with jax.enable_x64(True):
        rows = linear._map(2, (2,))
        rows += linear._data("linnerud", (2,))
    one = [row for row in rows if row["depth"] == 1 and row.get("from")]
    assert len(one) == len(linear._POWERS) + 1
    assert all(row["× updates"] == row["× FLOPs"] == 1 for row in one if row["updates"])
    deep = [row for row in rows if row["depth"] == 2]
    assert len(deep) == 2 * len(one) + 1  # from both ends, and plain descent
    dearer = [row["kFLOP an update"] / one[0]["kFLOP an update"] for row in deep[:8]]
    assert all(1 < ratio < 10 for ratio in dearer)
    linear.plot(tmp_path / "map.png", rows)
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_what_a_run_has_left_is_the_same_but_for_seconds(finished_run, tmp_path):
    wanted = faults.left(finished_run)
    assert faults.left(tmp_path) is None
    for name, old, new, same in (
        ("results.json", '"seconds": ', '"seconds": 1', True),
        ("metrics.jsonl", '"seconds": ', '"seconds": 1', True),
        ("metrics.jsonl", '"loss": ', '"loss": 1', False),
        ("results.json", '"accuracy": 0', '"accuracy": 1', False),
    ):
        workdir = tmp_path / "run"
        shutil.copytree(finished_run, workdir)
        text = (workdir / name).read_text()
        assert old in text
        (workdir / name).write_text(text.replace(old, new))
        assert (faults.left(workdir) == wanted) is same
        shutil.rmtree(workdir)
    shutil.copytree(finished_run, workdir)
    next((workdir / "probes").iterdir()).unlink()
    assert faults.left(workdir) != wanted


@pytest.mark.parametrize(
    ("said", "status", "same", "outcome"),
    [
        ("a line\n", 0, True, "same"),
        ("a line\n", 0, False, "unnoticed"),
        ("a line\nexperiments.run: no\n", 2, False, "refused"),
        ("experiments.predict: skipped x: no\npredictions in y\n", 1, True, "refused"),
        ("", 2, False, "other"),
        ("Traceback (most recent call last):\n  x\nE: y\n", 1, False, "traceback"),
        ("a line\n", -11, False, "other"),
        ("a line\n", None, False, "hung"),
    ],
)
def test_a_trial_is_what_its_command_said_and_left(
    tmp_path, said, status, same, outcome
):
    class Ended(faults._Command):
        def __init__(self):
            self.log, self.words = tmp_path / "log", "run"

    (tmp_path / "log").write_text(said)
    assert Ended().outcome(status, lambda: same)[0] == outcome


def test_a_file_is_spoilt_in_every_way(tmp_path):
    seen, path = set(), tmp_path / "file"
    for seed in range(60):
        path.write_bytes(bytes(range(256)))
        how = faults.spoil(path, random.Random(seed))
        assert not path.exists() or how != "deleted"
        seen.add(how)
    assert seen == {"a bit", "a byte", "cut off", "zeros", "deleted"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="of Unix")
def test_memory_is_the_most_that_a_process_has_held():
    def program(size):
        return [sys.executable, "-c", f"x = b'1' * {size}; del x"]

    few, many = pictures.peak(program(1)), pictures.peak(program(10**8))
    assert 99 < many - few < 110
    with pytest.raises(RuntimeError, match="no_such_module"):
        pictures.peak([sys.executable, "-m", "no_such_module"])


def test_growth_is_that_of_memory_over_that_of_pictures(tmp_path):
    rows = []
    for count, held in ((10, 300.0), (100, 320.0)):
        rows.append(pictures._row("predict", count, count / 5, held, rows))
    assert [row.get("for each MB more") for row in rows] == [None, 20 / 18]
    pictures.plot(tmp_path / "x.png", rows)
    assert (tmp_path / "x.png").stat().st_size
