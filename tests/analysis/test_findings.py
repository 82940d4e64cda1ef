"""Sentences say what their numbers support, and no more."""

import json
import pathlib

import numpy as np
import pytest

from dib_jax.analysis import findings
from dib_jax.analysis.findings import (
    Probed,
    find,
    groups,
    read_findings,
    write_findings,
)
from dib_jax.analysis.statistics import Estimate

EPOCHS = np.array([0, 5, 10, 15])


def made(
    *, seed=0, algorithm="end_to_end", cka=None, last_input=1.8, violation=0.0, **config
):
    """A run with three stages, four probes, and what a test wants of it."""
    ones = np.ones((4, 3))
    trained = np.repeat(EPOCHS[:, None], 3, axis=1)
    if algorithm == "sequential":
        trained = np.array([[0, 0, 0], [5, 0, 0], [5, 5, 0], [5, 5, 5]])
    if cka is None:  # near the end from epoch 5, 10 and 15 on
        cka = [[0.5, 0.4, 0.3], [0.96, 0.6, 0.5], [0.99, 0.97, 0.6], [1, 1, 1]]
    information = {
        "epoch": EPOCHS,
        "seconds": np.full(4, 0.5),
        "samples": np.array(40),
        "alpha": np.array(1.01),
        "target_entropy": np.array(3.3),
        "input_target": np.array(2.0),
        "sigma": ones,
        "trained": trained,
        "cka_final": np.array(cka),
        "linear_cka_final": np.array(cka),
        "input_stage": np.linspace(2, last_input, 4)[:, None] * ones,
        "stage_target": 1.5 * ones,
        "stage_target_shuffled": 0.7 * ones,
        "stage_stage": np.full((4, 3, 3), 2.0 + violation),
    }
    rest = ("entropy", "conditional_target", "nhsic_input", "nhsic_target")
    information |= dict.fromkeys((*rest, "effective_rank"), ones)
    # So that I(Y;T2) = 1.5 is above I(Y;X) where that is wanted.
    information["input_target"] = np.array(2.0 - violation)
    flat = {
        "seed": seed,
        "workdir": f"w{seed}",
        "algorithm.name": algorithm,
        "objective.name": "dib",
        "dataset.name": "digits",
        "analysis.bandwidth": "mean",
        **config,
    }
    values = {f"train/{name}": value for name, value in information.items()}
    return Probed(pathlib.Path(f"run{seed}"), flat, values, 38.0)


def said(runs):
    return "\n".join(find(runs).sentences)


def test_of_one_run_no_order_is_claimed():
    text = said([made()])
    assert "from epoch 5, 10 and 15 on." in text
    assert "is 1.00 in one run, without an interval: no order is claimed." in text
    assert "bottom to top" not in text


def test_an_order_is_claimed_where_the_interval_over_runs_excludes_0():
    text = said([made(seed=seed) for seed in range(3)])
    assert "(95 % interval 1.00 to 1.00 over 3 runs): bottom to top" in text
    assert "means over the runs" in text


def test_no_order_is_established_where_runs_disagree():
    runs = [made(seed=0), made(seed=1)]
    turned = [[0.3, 0.4, 0.5], [0.5, 0.6, 0.96], [0.6, 0.97, 0.99], [1, 1, 1]]
    text = said([*runs, made(seed=2, cka=turned), made(seed=3, cka=turned)])
    assert "no order is established, for the interval holds 0" in text


def test_the_order_that_an_algorithm_imposes_is_called_so():
    text = said([made(seed=seed, algorithm="sequential") for seed in range(2)])
    assert "one after the other have this order imposed" in text
    assert "imposed" not in said([made(seed=seed) for seed in range(2)])


def test_a_stage_that_is_near_its_end_untrained_is_named():
    near = [[0.97, 0.4, 0.3], [0.97, 0.6, 0.5], [0.99, 0.97, 0.6], [1, 1, 1]]
    assert "stage 0 is so untrained" in said([made(cka=near)])
    assert "so untrained" not in said([made(last_input=0.5)])
    # In turn a later stage has not trained at later probes either.
    still = [[0.3, 0.4, 0.3], [0.96, 0.6, 0.97], [0.99, 0.97, 0.98], [1, 1, 1]]
    assert "stage 2 is so untrained" in said([made(cka=still, algorithm="sequential")])


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.1, 1, 1), (-1, -0.1, -1), (-0.2, 0.9, 0), (0.0, 1.0, 0), (np.nan, np.nan, 0)],
)
def test_a_verdict_needs_an_interval_without_0(low, high, wanted):
    assert Estimate(0.5, low, high).sign == wanted


def test_a_change_is_claimed_with_its_sign_where_all_runs_agree():
    ends = (1.0, 1.1, 0.9)
    falling = said([made(seed=s, last_input=end) for s, end in enumerate(ends)])
    assert "changes by −1.00, −1.00 and −1.00 bits, stage by stage; it falls" in falling
    ends = (1.0, 3.0, 2.1)
    mixed = said([made(seed=s, last_input=end) for s, end in enumerate(ends)])
    assert "every interval over the runs holds 0" in mixed
    assert "in one run: no interval, so nothing is claimed" in said([made()])


def test_violations_are_counted_where_they_are():
    # Over 5 variables there are 10 triples a probe. None is violated at first.
    assert "in 0 of 40 triples (0 %)." in said([made(algorithm="sequential")])
    # I(Y;X) = 1, so I(Y;T) = 1.5 is 0.5 above it in three triples a probe.
    found = find([made(violation=1.0)])
    text = "\n".join(found.sentences)
    assert "in 12 of 40 triples (30 %), by 0.50 bits in the mean and 0.50 at" in text
    assert "Y → X → T0" in text
    counted = found.statistics["data_processing"]
    assert counted["untrained network"]["violated"] == 3


def changing(change, **options):
    """A run whose normalised HSIC with X changes by so much in each stage."""
    run = made(**options)
    nhsic = np.linspace(0, 1, 4)[:, None] * np.asarray(change) + 2
    return run._replace(information={**run.information, "train/nhsic_input": nhsic})


def test_roles_are_told_apart_by_the_change_of_each_stage():
    # By 0 in the mean in all, but differently.
    apart = [changing([1 + 0.1 * s, 0, -1], seed=s) for s in range(3)]
    alike = [
        changing([0.1 * s, 0, 0], seed=s, algorithm="sequential") for s in range(3)
    ]
    text = said(apart)
    assert "with X by +1.10, +0.00 and −1.00" in text
    assert ", and rises in stage 0 and falls in stage 2 (intervals over" in text
    sentences, table = findings.differentiation([apart, alike])
    assert "digits, sequential, dib beside end to end, 3 and 3 runs" in sentences[0]
    assert "more different end to end; by nHSIC with Y" in sentences[0]
    assert "no difference is established" in sentences[0]
    x, y = table.rows
    assert x[1:5] == pytest.approx(("X", 0.857, 0.047, 0.81), abs=0.01)
    assert y[4] == 0
    # The other way round, it is the other way round; one run claims nothing.
    turned = [
        [run._replace(config={**run.config, "algorithm.name": name}) for run in runs]
        for runs, name in ((apart, "parallel"), (alike, "end_to_end"))
    ]
    assert "less different end to end" in findings.differentiation(turned)[0][0]
    (single,) = findings.differentiation([apart[:1], alike])[0]
    assert "so no difference is claimed" in single
    assert findings.differentiation([apart])[0] == []
    elsewhere = [run._replace(config={**run.config, "model.depth": 9}) for run in alike]
    assert findings.differentiation([apart, elsewhere])[0] == []


def test_an_objective_that_had_no_use_is_not_named():
    assert "digits, sequential, dib:" in said([made(algorithm="sequential")])
    fed_back = made(algorithm="feedback")._replace(unused=("objective", "head"))
    assert "digits, feedback:" in said([fed_back])
    assert "digits, graph_end_to_end:" in said([made(algorithm="graph_end_to_end")])


def test_the_control_with_shuffled_targets_stands_beside_the_value():
    assert "I(T;Y) is 1.50 bits of H(Y) = 3.30; 0.70 with shuffled" in said([made()])


def test_the_cost_is_the_share_of_both_times():
    assert "2.0 s beside 38.0 s of training, 5.0 % of both" in said([made()])


def test_runs_are_grouped_by_all_but_their_seed():
    runs = [made(), made(seed=1), made(algorithm="parallel"), made(**{"epochs": 3})]
    assert [len(group) for group in groups(runs)] == [2, 1, 1]
    table = findings.compare(groups(runs))
    assert len(table.rows) == 9
    assert table.rows[0][:3] == ("digits, end_to_end", 2, 0)
    assert "1.50 ± 0.00" in findings.as_text(table)


def test_two_runs_of_one_seed_in_a_group_are_refused():
    again = made()._replace(workdir=pathlib.Path("copy"))
    with pytest.raises(ValueError, match="^run0 and copy are runs of one config and"):
        groups([made(), made(seed=1), again])
    # Another algorithm's run of that seed is no repetition.
    assert len(groups([made(), made(algorithm="parallel")])) == 2


def test_findings_come_back_as_they_were_written(tmp_path):
    found = find([made()])
    write_findings(tmp_path, found)
    again = read_findings(tmp_path)
    assert again.sentences == found.sentences
    assert [table.rows for table in again.tables] == [t.rows for t in found.tables]
    # What JSON cannot hold is null.
    saved = json.loads((tmp_path / "findings.json").read_text())
    interval = saved["statistics"]["convergence"]["CKA, final"]["interval"]
    assert interval == [None, None]
    (tmp_path / "findings.json").write_text("{")
    assert read_findings(tmp_path) is None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([47, 56, 60], False), ([10, 30, 12], True), ([0.0, 3.0], False), ([0, 6], True)],
)
def test_a_share_moves_where_it_doubles_by_more_than_little(values, wanted):
    assert findings._moves(values, least=5) is wanted
