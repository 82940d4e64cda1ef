"""Say what is on pictures, by the network of a finished run.

python -m experiments.predict --workdir=DIR [--out=OUT]
    [--exits [--rule=RULE] [--tau=TAU]] IMAGE…

Draws on each picture what the network of a run finds in it, as OUT/NAME.png,
and writes OUT/predictions.json and OUT/index.html. IMAGE is a file, or a
folder of files and folders, of any size and format that Pillow reads. Where
folders are named like classes, the accuracy is said. A file that cannot be
read is named and skipped, and the exit status is 1.

  --workdir=DIR  the folder of a finished run
  --out=OUT      where the pictures and predictions.json go; DIR/predictions
                 where it is left out. OUT-2 if OUT has predictions already
  --exits        a picture leaves at the first head that is sure of it, by the
                 rule and threshold that `experiments.evaluate --exits` has
                 chosen; predictions.json says at which stage
  --rule=RULE    confidence, entropy or commitment, instead of that rule
  --tau=TAU      0 to 1, instead of that threshold
  --help         this
"""

import contextlib
import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dib_jax.commands import command_line, exits
from dib_jax.commands.exits import Leaving
from dib_jax.commands.prediction_page import (
    Predicted,
    accuracy_line,
    class_of_folder,
    index_page,
)
from dib_jax.data.folders import walk
from dib_jax.data.picture_files import (
    UnreadablePictureError,
    fit,
    fitted_size,
    is_picture,
    read_picture,
)

_WRITTEN = "predictions.json"
_BATCH = 32  # pictures that are held at once
_PIXELS = 1 << 26  # and about how many pixels, 200 MB of them


def predict(
    workdir: pathlib.Path,
    images: Iterable[pathlib.Path],
    out: pathlib.Path,
    *,
    another: bool = False,
    leaving: Leaving | None = None,
) -> list[pathlib.Path]:
    """Everything that the command does, for a notebook too.

    Args:
        workdir: of a finished run.
        images: files and folders.
        out: a folder without predictions.json; made where it is missing. No file in it
            is overwritten.
        another: take OUT-2 and so on where `out` has predictions, or gets them now.
        leaving: when a picture leaves the network early; None for never.

    Returns:
        The files that could not be read.

    Raises:
        ValueError: there is no finished run, its data are no pictures, a file is
            missing, a folder holds no picture, `out` holds predictions.json already,
            or the network cannot be left so.
        OSError: `out` cannot be written.
    """
    if not another:
        _check_free(out)
    tops = _files(images)
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.commands.assemble import assemble_from
    from dib_jax.training.finished import restore
    from dib_jax.training.workdir import read_results

    read_results(workdir)  # whether it is finished
    experiment = assemble_from(workdir, with_data=False)
    if "images" not in experiment.dataset.train or experiment.task.objects is None:
        raise ValueError(
            f"--workdir: the run in {workdir} is {experiment.about['task']} of "
            f"{experiment.dataset.kind.name}; only classes and objects of pictures can "
            "be shown"
        )
    network, _ = restore(experiment, workdir)
    outputs_of = _whole if leaving is None else leaving.outputs(experiment, network)
    with _claimed(out, another=another) as free:
        return _write_all(experiment, network, outputs_of, tops, free, workdir)


def _write_all(
    experiment: Any,
    network: Any,
    outputs_of: Callable[..., tuple[Any, Sequence[int] | None]],
    tops: Mapping[pathlib.Path, pathlib.Path],
    out: pathlib.Path,
    workdir: pathlib.Path,
) -> list[pathlib.Path]:
    """Write what is found on each file; those that could not be read."""
    from dib_jax.training.workdir import write_atomically, write_json

    taken = {path.name.lower() for path in out.iterdir()}
    predicted: list[Predicted] = []
    unreadable: list[pathlib.Path] = []
    for pictures in _groups(tops, unreadable):
        shown = list(pictures.values())
        found, left_at = _found(experiment, network, shown, outputs_of)
        for number, (file, picture) in enumerate(pictures.items()):
            objects = found[number]
            drawing = _free_name(taken, file.stem)
            _write_drawing(out / drawing, file, picture, objects)
            size = list(picture.size)
            at = {} if left_at is None else {"exit": left_at[number]}
            entry = {"file": str(file), "size": size, **at, "objects": objects}
            names = experiment.dataset.class_names
            truth = class_of_folder(file, tops[file], names)
            predicted.append(Predicted(entry, drawing, truth))
    page = index_page(predicted, workdir).encode(errors="replace")
    index = _free_name(taken, "index", ".html")
    write_atomically(out / index, page)
    write_json(out / _WRITTEN, [one.entry for one in predicted])
    if line := accuracy_line(predicted):
        print(line)
    print(f"predictions in {out / _WRITTEN}, and to look at in {out / index}")
    return unreadable


def _whole(
    experiment: Any, network: Any, samples: dict[str, np.ndarray]
) -> tuple[Any, None]:
    """The outputs of the last exit, which all samples come to."""
    from dib_jax.training.evaluation import outputs_of

    return outputs_of(experiment, network, samples), None


def _found(
    experiment: Any,
    network: Any,
    pictures: list[Image.Image],
    outputs_of: Callable[..., tuple[Any, Sequence[int] | None]],
) -> tuple[list[list[dict[str, Any]]], Sequence[int] | None]:
    """What a network finds in each of some pictures, at most `_BATCH`, and its exit."""
    import jax

    if not pictures:
        return [], None
    dataset = experiment.dataset
    shape = dataset.train["images"].shape[1:]
    # Sets of scenes, which have several boxes to a picture, keep the sides' proportion.
    pad = "box_labels" in dataset.train
    inputs = np.zeros((_BATCH, *shape), np.uint8)  # one shape, so compiled once
    for row, picture in enumerate(pictures):
        inputs[row] = fit(picture, shape, pad=pad)
    outputs, left_at = outputs_of(experiment, network, {"images": inputs})
    objects = experiment.task.objects(outputs)
    found = jax.tree.map(np.asarray, objects)
    listed = []
    for row, picture in enumerate(pictures):
        # Pixels of the picture to the whole width and height of the network's input.
        size, fitted = picture.size, fitted_size(picture.size, shape, pad=pad)
        unit = size[0] * shape[1] / fitted[0], size[1] * shape[0] / fitted[1]
        places = [(row, int(place)) for place in np.flatnonzero(found.found[row])]
        names = dataset.class_names
        listed.append([_object(found, place, names, size, unit) for place in places])
    return listed, left_at


def _object(
    found: Any,
    place: tuple[int, int],
    class_names: Sequence[str],
    size: tuple[int, int],
    unit: tuple[float, float],
) -> dict[str, Any]:
    """One of the objects that were found, its box in pixels of its picture."""
    label, score = int(found.labels[place]), round(float(found.scores[place]), 6)
    entry = {"label": label, "class_name": class_names[label], "score": score}
    if found.boxes is not None:
        box = np.clip(found.boxes[place] * [*unit, *unit], 0, [*size, *size])
        entry["box"] = [round(float(side), 2) for side in box]
    return entry


def _groups(
    files: Iterable[pathlib.Path], unreadable: list[pathlib.Path]
) -> Iterator[dict[pathlib.Path, Image.Image]]:
    """Some pictures at a time; a file that cannot be read is named and noted."""
    group: dict[pathlib.Path, Image.Image] = {}
    pixels = 0
    for file in files:
        try:
            group[file] = read_picture(file)
        except UnreadablePictureError as error:
            _say(f"skipped {file}: {error}")
            unreadable.append(file)
            continue
        pixels += group[file].width * group[file].height
        if len(group) == _BATCH or pixels > _PIXELS:
            yield group
            group, pixels = {}, 0
    if group:
        yield group


def _write_drawing(
    path: pathlib.Path, file: pathlib.Path, picture: Image.Image, objects: list[Any]
) -> None:
    from dib_jax.tasks.pictures import Mark, draw
    from dib_jax.tasks.style import stage_colors
    from dib_jax.training.workdir import write_atomically

    colors = stage_colors(7)
    marks = []
    for entry in objects:
        words = f"{entry['class_name']} {100 * entry['score']:.0f} %"
        # Words alone are read best in black.
        color = colors[entry["label"] % len(colors)] if "box" in entry else "black"
        marks.append(Mark(entry.get("box"), words, color))
    buffer = io.BytesIO()
    draw(picture, marks).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
    words = ", ".join(mark.words for mark in marks)
    print(f"{file} → {path}: {words or 'nothing found'}")


def _files(images: Iterable[pathlib.Path]) -> dict[pathlib.Path, pathlib.Path]:
    """The files meant, each once, with the folder that was given for it or is its."""
    files: dict[pathlib.Path, pathlib.Path] = {}
    for path in images:
        if path.is_dir():
            inside = [
                file
                for file in walk(path)
                if is_picture(file)
                and not file.is_dir()
                # What an earlier call has drawn is not looked at again.
                and (file.parent == path or not (file.parent / _WRITTEN).exists())
            ]
            if not inside:
                raise ValueError(
                    f"{path} holds no picture; give a folder of pictures, or files"
                )
            files |= {file: path for file in inside if file not in files}
        elif path.exists():
            files.setdefault(path, path.parent)
        else:
            raise ValueError(f"{path} is not there; give pictures, or folders of them")
    return files


def _free_name(taken: set[str], stem: str, ending: str = ".png") -> str:
    """`<stem>.png`, or with a number behind the stem; from now on it is taken."""
    numbered = (f"{stem}-{number}{ending}" for number in itertools.count(2))
    names = itertools.chain([stem + ending], numbered)
    # Names that differ in capitals alone are one name on some systems.
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _check_free(out: pathlib.Path) -> None:
    if (out / _WRITTEN).exists():
        raise ValueError(
            f"--out: {out / _WRITTEN} is there already and is not "
            "overwritten; give another --out=FOLDER"
        )


@contextlib.contextmanager
def _claimed(out: pathlib.Path, *, another: bool) -> Iterator[pathlib.Path]:
    """A folder without predictions that no other process writes any into."""
    from dib_jax.training.lock import owned

    numbered = (out.with_name(f"{out.name}-{n}") for n in itertools.count(2))
    with contextlib.ExitStack() as stack:
        for folder in itertools.chain([out], numbered):
            try:
                _check_free(folder)  # where nothing must be written, a lock neither
                own = owned(folder, field="out", patience=0, leave=False)
                stack.enter_context(own)
                _check_free(folder)  # another process may just have done it
                break
            except ValueError:  # one of both
                stack.close()
                if not another:
                    raise
        if folder != out:
            _say(f"{out} has predictions already; these go to {folder}")
        yield folder


def _say(message: str) -> None:
    command_line.say(command_line.called("predict"), message)


def main(arguments: list[str]) -> int:
    """The command."""
    given = command_line.split_arguments(
        arguments,
        ("--workdir=DIR", "--out=OUT", "--exits", "--rule=RULE", "--tau=TAU"),
        rest="pictures and folders of pictures",
        help=command_line.documented("predict", __doc__, summary=False),
    )
    workdir = command_line.find_workdir(given.flags)
    if given.flags.get("out") == "":
        raise ValueError("--out is empty; give a folder, or leave the flag out")
    if not given.rest:
        raise ValueError("no picture is given: name files, or folders of pictures")
    wanted = pathlib.Path(given.flags.get("out", workdir / "predictions")).expanduser()
    images = [pathlib.Path(word).expanduser() for word in given.rest]
    leaving = exits.read_leaving(workdir, given.flags)
    count = len(predict(workdir, images, wanted, another=True, leaving=leaving))
    if count:
        files, were = ("1 file", "was") if count == 1 else (f"{count} files", "were")
        _say(f"{files} could not be read and {were} skipped")
    return int(count > 0)


if __name__ == "__main__":
    command_line.start("predict")
