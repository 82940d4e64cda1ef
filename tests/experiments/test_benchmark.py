"""The benchmark command: its mistakes, and that a table can be read again."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import benchmark, command_line
from experiments.benchmarks import compile, table, timing, training

ROOT = pathlib.Path(__file__).parents[2]


def test_every_round_has_all_that_is_compared_and_no_order_is_for_ever():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = timing.paired(functions, seconds=0.0)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert rounds[0] == "abc", "first, one run each to compile"
    assert all(sorted(round) == ["a", "b", "c"] for round in rounds)
    assert len(set(rounds[1:])) > 1
    assert [len(own) for own in times.values()] == [3, 3, 3]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one benchmark of information, estimation, training, compile, got"),
        (["informatoin"], "got informatoin"),
        (["information", "estimation"], "got information estimation"),
        (["information", "--oot=x"], "unknown flag --oot"),
        (["information", "--networks=mlp"], "--networks means nothing to the benchma"),
        (["training", "--networks=mlp,vgg12"], "--networks: got 'vgg12'; must be some"),
        (["training", "--batch_sizes=0"], "--batch_sizes: got '0'; must be integers"),
        (["compile", "--only=vgg11,vgg12"], "--only: got 'vgg12'; must be some of vgg"),
        (["training", "--compile_only=1"], "--compile_only: got '1'; must be True or"),
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


def test_the_compilers_figures_of_training_need_no_step(tmp_path, monkeypatch):
    def must_not_run(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(training, "_run", must_not_run)
    arguments = ["training", "--networks=mlp", "--batch_sizes=8,16"]
    benchmark.main([*arguments, "--compile_only=True", f"--out={tmp_path}"])
    record = json.loads((tmp_path / "benchmark_training.json").read_text())
    assert (tmp_path / "benchmark_training.png").stat().st_size > 1000
    found = {(row["batch"], row["schedule"]): row for row in record["rows"]}
    assert len(found) == len(record["rows"]) == 10
    for size in (8, 16):
        whole = found[size, "end to end"]
        assert whole["× temp MiB"] == whole["× GFLOP"] == 1
        assert found[size, "sequential, cached"]["steps"] == 3
        in_turn, with_trunk = (
            found[size, f"sequential, {how}"]["GFLOP"]
            for how in ("cached", "forward pass")
        )
        assert in_turn < with_trunk
    assert not any("ms" in row for row in record["rows"])


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs libtpu.*pip install -e '\.\[tpu\]'"):
        compile.compile_ahead()


def test_a_config_compiles_for_one_described_chip_and_for_four(tmp_path):
    pytest.importorskip("libtpu")
    arguments = ["--topology=v5e:2x2", "--only=mnist_mlp", f"--out={tmp_path}"]
    # In a process of its own: libtpu keeps what it was told at its first start.
    subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "compile", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=True,
    )
    record = json.loads((tmp_path / "benchmark_compile.json").read_text())
    one, four = record["rows"]
    assert (one["chips"], four["chips"]) == (1, 4)
    # Three stages, of which the last two are alike.
    assert (one["programs"], one["different"]) == (3, 2)
    # The first stage's weights and their momentum: 784 × 512 numbers of 4 bytes each.
    assert one["peak MiB"] > 2 * 784 * 512 * 4 / 2**20
    assert one["of program"] == 0
    # The products are divided; the Gram's decomposition is done by every chip.
    assert 0.2 * one["GFLOP"] < four["GFLOP"] < 0.4 * one["GFLOP"]
    assert (tmp_path / "benchmark_compile.png").stat().st_size > 1000


def test_steps_of_all_schedules_are_timed_against_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training, "paired", lambda runs, seconds: timing.paired(runs, seconds=0.0)
    )
    (rows,) = training.training(networks="mlp", batch_sizes="8")
    assert rows[0]["schedule"] == "end to end"
    assert rows[0]["× end to end"] == 1
    assert {row["rounds"] for row in rows} == {3}
    assert all(row["ms"] > 0 for row in rows)
