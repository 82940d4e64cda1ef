"""Say what is on pictures, by the network of a finished run.

python -m experiments.predict --workdir=DIR [--out=OUT]
    [--exits [--rule=RULE] [--tau=TAU]] IMAGE…

Draws on each picture what the network of a run finds in it, as OUT/NAME.png,
and writes OUT/predictions.json. IMAGE is a file, or a folder of files, of any
size and format that Pillow reads. A file that cannot be read is named and
skipped, and the exit status is 1.

  --workdir=DIR  the folder of a finished run
  --out=OUT      where the pictures and predictions.json go; DIR/predictions
                 where it is left out
  --exits        a picture leaves at the first head that is sure of it, by the
                 rule and threshold that `experiments.evaluate --exits` has
                 chosen; predictions.json says at which stage
  --rule=RULE    confidence, entropy or commitment, instead of that rule
  --tau=TAU      0 to 1, instead of that threshold
  --help         this
"""

import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dib_jax.commands import command_line, exits
from dib_jax.commands.exits import Leaving

_CLEAR = ("rgba", "la", "pa")  # modes with transparency
_BATCH = 32  # pictures that are held at once


class UnreadablePictureError(Exception):
    """A file that is no picture, or a damaged one; the message says why."""


def predict(
    workdir: pathlib.Path,
    images: Iterable[pathlib.Path],
    out: pathlib.Path,
    *,
    leaving: Leaving | None = None,
) -> list[pathlib.Path]:
    """Everything that the command does, for a notebook too.

    Args:
        workdir: of a finished run.
        images: files and folders.
        out: a folder without predictions.json; made where it is missing. No file in it
            is overwritten.
        leaving: when a picture leaves the network early; None for never.

    Returns:
        The files that could not be read.

    Raises:
        ValueError: there is no finished run, its data are no pictures, a file is
            missing, a folder holds no picture, `out` holds predictions.json already,
            or the network cannot be left so.
        OSError: `out` cannot be written.
    """
    files = _files(images)
    if (out / "predictions.json").exists():
        raise ValueError(
            f"--out: {out / 'predictions.json'} is there already and is not "
            "overwritten; give another --out=FOLDER"
        )
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.commands.assemble import assemble_from
    from dib_jax.training.finished import restore
    from dib_jax.training.workdir import read_results, write_json

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
    out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    unreadable: list[pathlib.Path] = []
    for start in range(0, len(files), _BATCH):
        pictures = _read(files[start : start + _BATCH], unreadable)
        shown = list(pictures.values())
        found, left_at = _found(experiment, network, shown, outputs_of)
        for number, (file, picture) in enumerate(pictures.items()):
            _write_drawing(out, file, picture, found[number])
            at = {} if left_at is None else {"exit": left_at[number]}
            entry = {"file": str(file), "size": list(picture.size), **at}
            entries.append({**entry, "objects": found[number]})
    write_json(out / "predictions.json", entries)
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
        size, fitted = picture.size, _fitted_size(picture.size, shape, pad=pad)
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


def _read(
    files: Iterable[pathlib.Path], unreadable: list[pathlib.Path]
) -> dict[pathlib.Path, Image.Image]:
    """The pictures in some files; a file that cannot be read is named and noted."""
    pictures = {}
    for file in files:
        try:
            pictures[file] = read_picture(file)
        except UnreadablePictureError as error:
            _say(f"skipped {file}: {error}")
            unreadable.append(file)
    return pictures


def read_picture(path: pathlib.Path) -> Image.Image:
    """A picture, upright, as RGB or grey of 8 bits.

    The orientation that a camera has noted is applied, as every viewer does. Palettes
    are resolved, what is transparent is white, 16 bits become 8, and of several frames
    the first is taken.

    Args:
        path: a file that Pillow reads.

    Raises:
        UnreadablePictureError: it does not.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            return _eight_bits(picture)
    except Exception as error:  # Pillow's decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePictureError(reason) from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        levels = np.nan_to_num(np.asarray(picture, np.float64))
        if picture.mode.startswith("I;") or levels.max() > 255:  # 65535 is white
            levels = levels / 257
        elif picture.mode == "F" and levels.max() <= 1:
            levels = levels * 255
        levels = np.clip(np.round(levels), 0, 255)
        return Image.fromarray(levels.astype(np.uint8))
    if "transparency" in picture.info or picture.mode.lower() in _CLEAR:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    if picture.mode in ("L", "1"):
        return picture.convert("L")
    return picture.convert("RGB")


def fit(picture: Image.Image, shape: tuple[int, ...], *, pad: bool) -> np.ndarray:
    """A picture in the shape of a data set's.

    Args:
        picture: RGB or grey.
        shape: (h, w, c), c of 1 (grey) or 3.
        pad: keep the proportion of the sides, and fill up with black at the right and
            below; else stretch.

    Returns:
        uint8 (h, w, c).

    Raises:
        ValueError: the data set's pictures are neither grey nor RGB.
    """
    channels = shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"the run's pictures have {channels} channels; only grey (1) and RGB (3) "
            "ones can be made of files"
        )
    picture = picture.convert("L" if channels == 1 else "RGB")
    size = _fitted_size(picture.size, shape, pad=pad)
    resized = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    result = np.zeros(shape, np.uint8)
    result[: size[1], : size[0]] = resized.reshape(size[1], size[0], channels)
    return result


def _fitted_size(
    size: tuple[int, int], shape: tuple[int, ...], *, pad: bool
) -> tuple[int, int]:
    """Width and height that a picture has within the network's input."""
    height, width = shape[:2]
    if not pad:
        return width, height
    scale = min(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _write_drawing(
    out: pathlib.Path, file: pathlib.Path, picture: Image.Image, objects: list[Any]
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
    path = _free_name(out, file.stem)
    write_atomically(path, buffer.getvalue())
    words = ", ".join(mark.words for mark in marks)
    print(f"{file} → {path}: {words or 'nothing found'}")


def _files(images: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The files meant, folders replaced by the pictures in them, each once."""
    Image.init()
    endings = set(Image.registered_extensions())
    files: list[pathlib.Path] = []
    for path in images:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.glob("[!.]*")
                if file.suffix.lower() in endings and file.is_file()
            )
            if not inside:
                raise ValueError(
                    f"{path} holds no picture; give a folder of pictures, or files"
                )
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path} is not there; give pictures, or folders of them")
    return list(dict.fromkeys(files))


def _free_name(folder: pathlib.Path, stem: str) -> pathlib.Path:
    """`<stem>.png`, or with a number behind the stem where that name is taken."""
    # Names that differ in capitals alone are one name on some systems.
    taken = {path.name.lower() for path in folder.iterdir()}
    numbered = (f"{stem}-{number}.png" for number in itertools.count(2))
    names = itertools.chain([f"{stem}.png"], numbered)
    return folder / next(name for name in names if name.lower() not in taken)


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
    out = pathlib.Path(given.flags.get("out", workdir / "predictions")).expanduser()
    images = [pathlib.Path(word).expanduser() for word in given.rest]
    leaving = exits.read_leaving(workdir, given.flags)
    count = len(predict(workdir, images, out, leaving=leaving))
    print(f"predictions in {out / 'predictions.json'}")
    if count:
        files, were = ("1 file", "was") if count == 1 else (f"{count} files", "were")
        _say(f"{files} could not be read and {were} skipped")
    return int(count > 0)


if __name__ == "__main__":
    command_line.start("predict")
