"""The benchmark command: its mistakes, and that a table can be read again."""

import json

import pytest

from experiments import benchmark, command_line


def test_all_that_is_compared_runs_in_turn_after_a_run_to_compile():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = benchmark.paired(functions, seconds=0.0)
    assert "".join(calls) == "ab" * 4
    assert [len(own) for own in times.values()] == [3, 3]


def test_a_disturbed_round_leaves_the_ratio_as_it_is():
    times = {"exact": [2.0, 900.0, 4.0], "ours": [1.0, 450.0, 2.0]}
    rows = benchmark._rows(times, "exact", {"n": 8})
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
    benchmark.write(tmp_path, "speed", rows, "python -m experiments.benchmark speed")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"benchmark_speed.{end}" for end in ("json", "md", "png")]
    record = json.loads((tmp_path / "benchmark_speed.json").read_text())
    assert {"hardware", "versions", "command", "rows"} == record.keys()
    assert record["rows"] == rows
    assert "| 16 | 2 | theirs | 24 |" in (tmp_path / "benchmark_speed.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one benchmark of information, estimation, got none"),
        (["informatoin"], "got informatoin"),
        (["information", "estimation"], "got information estimation"),
        (["information", "--oot=x"], "unknown flag --oot"),
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
