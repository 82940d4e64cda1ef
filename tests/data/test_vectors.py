"""Vectors, the kind of sample that is no picture."""

import numpy as np
import pytest

from dib_jax.data import Dataset, kind_named, load
from dib_jax.data.pictures import PICTURES
from dib_jax.data.vectors import VECTORS


def arrays(count=6, **changes):
    draw = np.random.default_rng(0)
    features = draw.normal(5, 3, (count, 4))
    return {"features": features, "labels": np.arange(count) % 3, **changes}


def checked(split):
    return VECTORS.check(split, source="my.npz", num_classes=3)


def test_a_split_has_its_dtypes():
    split = checked(arrays(groups=np.arange(6)))
    dtypes = {name: array.dtype.name for name, array in split.items()}
    assert dtypes == {"features": "float32", "labels": "int32", "groups": "int64"}
    whole = checked(arrays(features=np.arange(12).reshape(6, 2)))
    assert whole["features"].dtype == np.float32


def with_value(row, column, value):
    features = arrays()["features"]
    features[row, column] = value
    return {"features": features}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.array(list("abcdef"))}, "features must be numbers, got <U1"),
        ({"features": np.zeros(6)}, r"features must have shape \(n, d\), got \(6,\)"),
        ({"features": np.zeros((6, 0))}, r"must have shape \(n, d\), got \(6, 0\)"),
        (with_value(2, 3, np.nan), "row 2 holds nan in column 3; 1 bad"),
        (with_value(4, 0, 1e300), "row 4 holds inf in column 0; 1 bad"),
        ({"labels": np.arange(6)}, r"labels must be 0..2, row 3 holds 3; 3 bad row"),
        ({"labels": np.arange(5) % 3}, r"shape \(6,\), one per vector, got \(5,\)"),
        ({"labels": np.zeros(6)}, "labels must be integers, got float64"),
        ({"groups": np.zeros(6)}, "groups must be integers of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_wrong_is_named_with_its_source(changes, message):
    with pytest.raises(ValueError, match=f"my.npz: .*{message}"):
        checked(arrays(**changes))


@pytest.mark.parametrize("name", ["features", "labels"])
def test_an_array_that_is_missing_is_named(name):
    split = arrays()
    del split[name]
    with pytest.raises(ValueError, match=f"no array '{name}'; a split needs features"):
        checked(split)


def test_columns_have_mean_0_and_deviation_1_over_the_training_split():
    train = checked(arrays(200))
    train["features"][:, 2] = 7.0  # a constant column says nothing, and harms nothing
    common = VECTORS.common(train)
    x = VECTORS.prepare(train, common)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), [1, 1, 0, 1], atol=1e-5)
    # Another split is prepared by the training split's numbers.
    np.testing.assert_allclose(
        VECTORS.prepare({"features": train["features"][:3]}, common), x[:3]
    )


def test_vectors_have_no_augmentation():
    with pytest.raises(ValueError, match="got 'flip'; vectors have no augmentation"):
        VECTORS.augment("flip", ("a", "b"))


def made_up(data_dir):
    """A data set of somebody's own, with numbers and labels as they came."""
    train, test = arrays(60), arrays(9)
    return Dataset("any", train, {}, test, tuple("abc"), "made up", kind=VECTORS)


def test_a_data_set_of_vectors_is_one_function():
    dataset = load(f"{__name__}:made_up", val_fraction=0.2)
    assert dataset.kind is VECTORS
    sizes = [len(split["labels"]) for split in dataset[1:4]]
    assert sizes == [48, 12, 9]
    assert dataset.train["features"].dtype == np.float32


def uneven(data_dir):
    """One whose test split has a column less."""
    return made_up(data_dir)._replace(test=arrays(features=np.zeros((6, 3))))


def test_features_must_be_alike_in_all_splits():
    message = r"features of train have shape \(4,\), those of test \(3,\)"
    with pytest.raises(ValueError, match=message):
        load(f"{__name__}:uneven")


def test_a_kind_is_found_by_name():
    assert kind_named("vectors") is VECTORS
    assert kind_named("pictures") is PICTURES
    with pytest.raises(ValueError, match="of the kind 'sounds' are not of this pack"):
        kind_named("sounds")
