"""A finished run as a function: `dib_jax.load("runs/x")("sign.jpg")`."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps

from dib_jax import tasks
from dib_jax.algorithms import Batch, Network
from dib_jax.commands.assemble import assemble_from
from dib_jax.data.picture_files import (
    UnreadablePictureError,
    eight_bits,
    fit,
    fitted_size,
    read_picture,
)
from dib_jax.training.devices import usual_arithmetic
from dib_jax.training.evaluation import predictor
from dib_jax.training.experiment import Experiment
from dib_jax.training.finished import restore

_PICTURES = 32  # that are held at once, in whatever size
_SAMPLES = 256  # that are computed at once
_ONE = (str, os.PathLike, Image.Image)
# A list of what is found in one sample: label, class_name, score, and box if there are.
Objects = list[dict[str, Any]]


class Model:
    """The network of a finished run, to be called.

    Samples are pictures or arrays, one or several. A picture is a file name, a Pillow
    picture, or an array (h, w, c) or (h, w): uint8, or floats from 0 (black) to 1; of
    any size, for it is fitted as `experiments.predict` does. Several pictures are a
    list of these, or one array (n, h, w, c). Of other data a sample is an array of the
    shape that the run was trained with, several are (n, …), and where a sample has more
    than one array they are a dict of such by name.

    Attributes:
        workdir: of the run.
        results: what results.json holds.
        class_names: in the order of the labels.
        experiment: the pieces of the run, without data.
        network: what it has trained, a pytree.
    """

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """Read a run; as `dib_jax.load`."""
        self.workdir = pathlib.Path(workdir).expanduser()
        with usual_arithmetic():
            self.experiment: Experiment = assemble_from(self.workdir, with_data=False)
            self.network, self.results = restore(self.experiment, self.workdir)
        self.class_names = self.experiment.dataset.class_names

    def __call__(self, samples: Any) -> Objects | list[Objects]:
        """What the network says of samples.

        Args:
            samples: one sample or several.

        Returns:
            Of a sample a list of dicts with `label`, `class_name`, `score` (0..1) and,
            where the task has boxes, `box`: x1, y1, x2, y2 in pixels of the picture as
            a viewer shows it. A classifier gives a list of one. Of several samples a
            list of such lists.

        Raises:
            ValueError: samples that cannot be read rightly, or a task without classes.
        """
        objects, experiment = self.experiment.task.objects, self.experiment
        if objects is None:
            raise ValueError(
                f"a run of {experiment.about['task']} tells no classes; take "
                "model.outputs(samples)"
            )
        if not self._sees_pictures():
            outputs, alone = self._compute("last", samples)
            listed = self._described(objects, outputs[0], None)
            return listed[0] if alone else listed
        pictures, alone = _pictures(samples)
        listed = []
        for start in range(0, len(pictures), _PICTURES):
            some = pictures[start : start + _PICTURES]
            outputs, _ = self._compute("last", some)
            listed += self._described(objects, outputs[0], some)
        return listed[0] if alone else listed

    def _described(
        self,
        objects: Callable[[jax.Array], tasks.Objects],
        outputs: np.ndarray,
        pictures: Sequence[Image.Image] | None,
    ) -> list[Objects]:
        """What is found in each sample, boxes in pixels of its picture."""
        found = jax.tree.map(np.asarray, objects(jax.numpy.asarray(outputs)))
        listed: list[Objects] = [[] for _ in outputs]
        for row, place in np.argwhere(found.found):
            label = int(found.labels[row, place])
            score = round(float(found.scores[row, place]), 6)
            name = self.class_names[label]
            entry: dict[str, Any] = {"label": label, "class_name": name, "score": score}
            if found.boxes is not None and pictures is not None:
                size, shape, pad = pictures[row].size, *self._shape()
                fitted = fitted_size(size, shape, pad=pad)
                # Pixels of the picture to the whole width and height of the input.
                unit = size[0] * shape[1] / fitted[0], size[1] * shape[0] / fitted[1]
                box = np.clip(
                    found.boxes[row, place] * [*unit, *unit], 0, [*size, *size]
                )
                entry["box"] = [round(float(side), 2) for side in box]
            listed[row].append(entry)
        return listed

    def _shape(self) -> tuple[tuple[int, ...], bool]:
        """Of the run's pictures; whether the proportion of their sides was kept."""
        # As in sets of scenes, which have several boxes a picture.
        like = self.experiment.dataset.train
        return like["images"].shape[1:], "box_labels" in like

    def outputs(self, samples: Any) -> np.ndarray:
        """What the last exit puts out, (n, …) float32: the logits of a classifier.

        Args:
            samples: one sample or several; of one, n is 1.
        """
        return self._compute("last", samples)[0][0]

    def exits(self, samples: Any) -> tuple[np.ndarray, ...]:
        """What every exit puts out, input side first, each as `outputs`.

        Args:
            samples: one sample or several.
        """
        return self._compute("exits", samples)[0]

    def features(self, samples: Any) -> tuple[np.ndarray, ...]:
        """The features of every stage, input side first, (n, …) each.

        Args:
            samples: one sample or several.
        """
        return self._compute("features", samples)[0]

    def function(self, what: str) -> Callable[[Network, Batch], Any]:
        """(network, batch) → a tuple of arrays.

        Args:
            what: "exits", "features", or "last" for the last exit alone.
        """
        algorithm = self.experiment.algorithm
        return {
            "exits": algorithm.predict,
            "features": algorithm.features,
            "last": lambda network, batch: algorithm.predict(network, batch)[-1:],
        }[what]

    def _sees_pictures(self) -> bool:
        return self.experiment.dataset.kind.content == ("images",)

    @functools.cache  # noqa: B019 - programs live as long as the model
    def _program(self, what: str) -> Callable[..., Any]:
        views = () if what == "features" else self.experiment.views
        return predictor(self.experiment, self.function(what), views=views)

    def _compute(self, what: str, samples: Any) -> tuple[tuple[np.ndarray, ...], bool]:
        """Arrays of all samples, and whether it was a single sample."""
        arrays, alone = self.arrays(samples)
        count = len(next(iter(arrays.values())))
        # Few sizes, so few programs; the last sample again and again is cut off.
        size = min(1 << (count - 1).bit_length(), _SAMPLES)
        made = []
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            some = {name: array[rows] for name, array in arrays.items()}
            with usual_arithmetic():
                found = self._program(what)(self.network, self.experiment.common, some)
            made.append([np.asarray(array)[: count - start] for array in found])
        return tuple(map(np.concatenate, zip(*made, strict=True))), alone

    def arrays(self, samples: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Samples as arrays in the shapes of the run's data.

        Args:
            samples: one sample or several.

        Returns:
            Arrays (n, …) by name, n ≥ 1, and whether it was a single sample.

        Raises:
            ValueError: they cannot be read rightly.
        """
        like = self.experiment.dataset.train
        if self._sees_pictures():
            pictures, alone = _pictures(samples)
            shape, pad = self._shape()
            fitted = [fit(picture, shape, pad=pad) for picture in pictures]
            return {"images": np.stack(fitted)}, alone
        names = self.experiment.dataset.kind.content
        if not isinstance(samples, Mapping):
            samples = {names[0]: samples} if len(names) == 1 else {}
        if set(samples) != set(names):
            raise ValueError(f"give a dict of the arrays {', '.join(names)}")
        made, alone = {}, False
        for name in names:
            array, shape = np.asarray(samples[name]), like[name].shape[1:]
            alone = array.shape == shape
            array = array[None] if alone else array
            fits = array.shape[1:] == shape and len(array)
            if not fits or array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{name}: got {array.dtype}{list(array.shape)}; a sample is an "
                    f"array of numbers {list(shape)}, several are (n, …)"
                )
            made[name] = array.astype(like[name].dtype)
            if not np.isfinite(made[name]).all():
                raise ValueError(f"{name}: some values are not finite")
        return made, alone


def _pictures(samples: Any) -> tuple[list[Image.Image], bool]:
    """Pictures as Pillow's, and whether it was a single one."""
    if isinstance(samples, _ONE):
        return [_picture(samples)], True
    if isinstance(samples, Sequence):
        if not samples:
            raise ValueError("no picture is given")
        return [_picture(each) for each in samples], False
    array = np.asarray(samples)
    if array.ndim == 4 and len(array):
        return [_picture(each) for each in array], False
    return [_picture(array)], True


def _picture(given: Any) -> Image.Image:
    """One picture, RGB or grey of 8 bits.

    Raises:
        ValueError: an array that is no picture for certain.
        UnreadablePictureError: a file that is none.
    """
    if isinstance(given, Image.Image):
        return eight_bits(ImageOps.exif_transpose(given))
    if isinstance(given, str | os.PathLike):
        try:
            return read_picture(pathlib.Path(given).expanduser())
        except UnreadablePictureError as error:
            raise UnreadablePictureError(f"{given}: {error}") from error
    array = np.asarray(given)
    allowed = "(h, w), (h, w, 1) or (h, w, 3), uint8 or floats from 0 (black) to 1"
    got = f"a picture must be an array {allowed}; got {array.dtype}{list(array.shape)}"
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    colored = array.ndim == 3 and array.shape[-1] == 3
    if not array.size or not (array.ndim == 2 or colored):
        raise ValueError(f"{got}; several pictures are (n, h, w, c)")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"{got} from {low:g} to {high:g}; levels from 0 to 255 are "
                "array.astype('uint8')"
            )
        array = np.round(255 * array.astype(np.float64)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(got)
    return Image.fromarray(array)
