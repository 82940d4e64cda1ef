"""Graphs, whose samples are nodes: files, checks, and what is made of them."""

import pickle
import zipfile

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dib_jax.data import load
from dib_jax.data.graphs import Mapped

COUNT = 12


def arrays(**changes):
    """A ring of 12 nodes in three classes, with a chord."""
    draw = np.random.default_rng(0)
    ring = np.stack([np.arange(COUNT), (np.arange(COUNT) + 1) % COUNT], axis=1)
    return {
        "edges": np.concatenate([ring, [[0, 6]]]),
        "features": draw.normal(3, 2, (COUNT, 5)),
        "labels": np.arange(COUNT) % 3,
        "train": np.arange(6),
        "val": np.array([6, 7, 8]),
        "test": np.array([9, 10, 11]),
        **changes,
    }


@pytest.fixture
def written(tmp_path):
    """Writes a graph and reads it as a data set."""

    def write(**changes):
        folder = tmp_path / "ring"
        folder.mkdir(exist_ok=True)
        given = {k: v for k, v in arrays(**changes).items() if v is not None}
        np.savez(folder / "graph.npz", **given)
        return load("ring", data_dir=str(tmp_path))

    return write


def graph_of(dataset):
    return dataset.kind.common(dataset.train)["graph"]


def dense(matrix):
    starts, columns, values = matrix[:3]
    made = np.zeros(matrix.shape, np.float32)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    made[rows, columns] = values
    return made


def test_a_split_has_nodes_and_the_graph_has_each_edge_both_ways(written):
    dataset = written()
    assert [len(split["nodes"]) for split in dataset[1:4]] == [6, 3, 3]
    np.testing.assert_array_equal(dataset.test["labels"], [0, 1, 2])
    graph = graph_of(dataset)
    edges = dense(graph.edges)
    np.testing.assert_array_equal(edges, edges.T)
    assert edges.sum() == 2 * 13
    assert edges.trace() == 0
    np.testing.assert_array_equal(graph.train, np.arange(COUNT) < 6)


def test_an_edge_that_is_there_twice_or_leads_to_itself_changes_nothing(written):
    plain = graph_of(written()).edges
    more = np.concatenate([arrays()["edges"], [[1, 0], [0, 1], [4, 4]]])
    for one, other in zip(plain[:3], graph_of(written(edges=more)).edges, strict=False):
        np.testing.assert_array_equal(one, other)


def test_a_directed_edge_leads_one_way_and_its_transpose_the_other(written):
    edges = graph_of(written(directed=np.array(True))).edges
    assert dense(edges)[1, 0] == 1  # node 1 hears of node 0
    assert dense(edges)[0, 1] == 0
    assert edges.transposed[0][-1] == len(edges.columns) == 13


def test_features_are_standardised_by_the_training_nodes(written):
    x = graph_of(written()).features
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[:6].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:6].std(axis=0), 1, atol=1e-5)


BAGS = {
    "features": None,
    "feat_indptr": np.arange(0, 2 * COUNT + 1, 2),
    "feat_indices": np.stack(
        [np.arange(COUNT) % 5, np.arange(COUNT) % 5 + 2]
    ).T.ravel(),
    "n_features": np.array(7),
}


def test_binary_features_are_given_by_their_places_and_each_row_has_the_sum_1(written):
    graph = graph_of(written(**BAGS))
    want = np.zeros((COUNT, 7), np.float32)
    for node in range(COUNT):
        want[node, [node % 5, node % 5 + 2]] = 0.5
    np.testing.assert_array_equal(dense(graph.features), want)
    np.testing.assert_array_equal(graph.rows(np.array([3, 0, 3])), want[[3, 0, 3]])


def test_features_in_a_file_of_their_own_are_read_part_by_part(written, tmp_path):
    plain = graph_of(written())
    np.save(tmp_path / "ring" / "features.npy", arrays()["features"])
    graph = graph_of(written(features=None))
    assert isinstance(graph.features, Mapped)
    assert isinstance(graph.features.file(), np.memmap)
    nodes = np.array([7, 2])
    np.testing.assert_allclose(
        graph.features.rows(nodes), plain.features[nodes], atol=1e-5
    )
    weights = np.random.default_rng(1).normal(size=(5, 2))
    np.testing.assert_allclose(
        graph.features.times(weights), plain.features @ weights, atol=1e-5
    )


def test_a_constant_column_is_no_larger_in_a_file_of_its_own(written, tmp_path):
    features = arrays()["features"].astype(np.float32)
    features[:, 1] = 0.1
    features[10, 1] = 0.2  # no training node
    plain = graph_of(written(features=features))
    np.save(tmp_path / "ring" / "features.npy", features)
    graph = graph_of(written(features=None))
    every = np.arange(COUNT)
    np.testing.assert_allclose(
        graph.features.rows(every), plain.features[every], atol=1e-5
    )


def with_value(value):
    features = arrays()["features"].astype(np.float64)
    features[4, 1] = value
    return features


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"edges": np.array([[0, 1], [3, 12]])},
            r"edges must lead to nodes 0..11, row 1 holds \[3, 12\]; 1 bad",
        ),
        ({"edges": np.zeros((2, 9), int)}, r"edges must be integers \(m, 2\), got"),
        ({"features": with_value(np.nan)}, "must be finite float32, node 4 holds nan"),
        ({"features": with_value(1e39)}, "must be finite float32, node 4 holds 1e.39"),
        ({"features": np.zeros((5, 3))}, r"features must be numbers \(12, d\)"),
        ({"features": None}, "no features; it needs `features`"),
        ({"train": np.array([0, 1, 3, 4])}, "class 2 has no training node; each of th"),
        ({"val": np.array([6, 5])}, "node 5 lies in train and in validation; the spl"),
        ({"test": np.array([9, 9])}, "test holds node 9 twice"),
        ({"test": np.array([9, 40])}, "test must lead to nodes 0..11, row 1 holds 40"),
        (
            {"labels": np.arange(12) % 3 - 1},
            "node 0 of train has the label -1, unknown",
        ),
        ({**BAGS, "n_features": np.array(4)}, "feat_indices must be 0..3, got 4"),
        ({"labels": None}, "no array 'labels'"),
        ({"edges": None, "edge": np.zeros((1, 2), int)}, "did you mean 'edges'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(written, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        written(**changes)
    assert "\n" not in str(raised.value)
    assert "graph.npz" in str(raised.value)


def test_a_node_of_unknown_class_may_stand_outside_the_splits(written):
    labels = arrays()["labels"]
    labels[11] = -1
    dataset = written(labels=labels, test=np.array([9, 10]))
    assert len(dataset.class_names) == 3


def planetoid(folder, **changes):
    """The ring as its seven pickles; the last three nodes are the test split."""
    features = csr_matrix((arrays()["features"] > 3).astype(np.float32))
    classes = np.eye(3, dtype=np.int32)[arrays()["labels"]]
    near = {node: [(node + 1) % COUNT, (node - 1) % COUNT] for node in range(COUNT)}
    index = np.array([11, 9, 10])
    contents = {
        "x": features[:6], "allx": features[:9], "tx": features[index],
        "y": classes[:6], "ally": classes[:9], "ty": classes[index], "graph": near,
        **changes,
    }  # fmt: skip
    folder.mkdir()
    for key, content in contents.items():
        with open(folder / f"ind.mini.{key}", "wb") as file:
            pickle.dump(content, file, protocol=2)
    np.savetxt(folder / "ind.mini.test.index", index, fmt="%d")
    return features.toarray(), folder


def test_planetoids_files_are_put_in_order(tmp_path):
    features, folder = planetoid(tmp_path / "mini")
    dataset = load("mini", data_dir=str(folder.parent))
    assert [split["nodes"].tolist() for split in dataset[1:4]] == [
        [0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11],
    ]  # fmt: skip
    np.testing.assert_array_equal(dataset.test["labels"], [0, 1, 2])
    np.testing.assert_array_equal(dense(graph_of(dataset).features) > 0, features > 0)


class Harmful:
    def __reduce__(self):
        return zipfile.ZipFile, ("harmed.zip", "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harmful(), "ind.mini.graph: cannot be read .*asks for zipfile"),
        (np.array([{}], object), "ind.mini.graph: cannot be read"),
    ],
)
def test_nothing_in_a_pickle_is_executed(tmp_path, monkeypatch, content, message):
    _, folder = planetoid(tmp_path / "mini", graph=content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load("mini", data_dir=str(folder.parent))
    assert not (tmp_path / "harmed.zip").exists()
