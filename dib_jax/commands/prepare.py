"""Get a data set ready, and show what is in it.

python -m experiments.prepare NAME [--FLAG=VALUE …]

Downloads a data set, or takes a folder of pictures, writes it into the folder
of data sets, and draws a contact sheet of pictures with labels and boxes.

  NAME                    cifar10, cifar100, fashion_mnist, gtsrb, mnist,
                          svhn_cropped; gtsrb48 is gtsrb with pictures of 48x48;
                          with --source any name
  --data_dir=VALUE        folder of data sets (TFDS_DATA_DIR,
                          ~/tensorflow_datasets)
  --archives=VALUE        folder of archives that need not be downloaded
  --source=VALUE          folder of pictures with YOLO, Pascal VOC or COCO
                          annotations, a table (CSV) of names and labels, or
                          a folder for each class; then:
  --size=VALUE            side of the stored pictures, in pixels (256, or
                          less where all pictures are smaller)
  --classes=VALUE         names of the classes, in order (those found)
  --test_fraction=VALUE   part held out where there is no test folder (0.2)
  --skip_bad_boxes=VALUE  leave pictures with a bad box out (False)
  --skip_unreadable=VALUE leave pictures out that cannot be read (False)
  --help                  this
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from dib_jax.commands import command_line

_SHEET = "contact_sheet.png"
_OPTIONS = {
    "size": int,
    "classes": str,
    "test_fraction": float,
    "skip_bad_boxes": bool,
    "skip_unreadable": bool,
}
_FLAGS = {"data_dir": str, "archives": str, "source": str, **_OPTIONS}


def prepare(
    name: str,
    *,
    data_dir: str = "",
    archives: str = "",
    source: str = "",
    **options: Any,
) -> pathlib.Path:
    """Everything that the command does, for a notebook too.

    Args:
        name: of the data set; with `source` any that is a plain folder name.
        data_dir: folder of data sets; empty for the usual places.
        archives: folder of archives that need not be downloaded.
        source: folder of pictures, with annotations or in folders of classes.
        options: those of `dib_jax.data.annotated.write_annotated`, with `source`.

    Returns:
        The path of the contact sheet.

    Raises:
        ValueError: a name, an archive or a picture cannot be used.
        OSError: a file or folder cannot be used, or a download failed.
    """
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax import data
    from dib_jax.data import preparation
    from dib_jax.data.annotated import write_annotated
    from dib_jax.data.contact_sheet import write_contact_sheet
    from dib_jax.data.duplicates import describe_duplicates

    root = data.data_root(data_dir)
    folder = root / data.check_name(name)
    shown = []

    def show(written: pathlib.Path) -> None:
        """Check a set and draw its sheet, which one's own must pass to appear."""
        # A validation split of its own is kept, and none is made.
        kept = 0.1 if (written / "validation.npz").exists() else 0
        shown.append(data.load(name, data_dir=str(written.parent), val_fraction=kept))
        write_contact_sheet(shown[0], written / _SHEET)

    if source and name in (*data.known_names(), *preparation.downloadable()):
        raise ValueError(f"{name!r} is the name of another set; choose your own")
    if not source and name in data.known_names():
        raise ValueError(f"{name!r} is embedded: there is nothing to prepare")
    if not source and preparation.is_prepared(name, root):
        print(f"{name} is already in {folder}")
    else:
        with _alone(name, root):
            if source:
                place = pathlib.Path(source).expanduser()
                write_annotated(place, folder, complete=show, **options)
            else:
                preparation.prepare(name, root, archives=archives)
    if not source:
        show(folder)
    (dataset,) = shown
    counts = ", ".join(
        f"{split} {data.size(getattr(dataset, split))}"
        for split in ("train", "validation", "test")
        if data.size(getattr(dataset, split))
    )
    shape = "x".join(map(str, dataset.train["images"].shape[1:]))
    print(f"{counts} pictures of {shape}, {len(dataset.class_names)} classes")
    print(describe_duplicates(dataset))
    return folder / _SHEET


@contextlib.contextmanager
def _alone(name: str, root: pathlib.Path) -> Iterator[None]:
    """Let no other process prepare the set; what a killed one has left is removed."""
    from dib_jax.training.lock import owned

    def waiting(who: str) -> None:
        print(f"{name}: {who} prepares it; waiting for that", flush=True)

    place = root / f".{name}"
    made = [each for each in (place, *place.parents) if not each.exists()]
    try:
        with owned(place, waiting=waiting, leave=False):
            for left in place.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
            yield
    finally:
        with contextlib.suppress(OSError):  # there is something in it
            for each in made or [place]:
                each.rmdir()


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(
        arguments,
        [f"--{flag}=VALUE" for flag in _FLAGS],
        rest="a name",
        help=command_line.documented("prepare", __doc__, summary=False),
    )
    if len(given.rest) != 1:
        raise ValueError(
            f"give the name of one data set, got {' '.join(given.rest) or 'none'}; "
            "--help says more"
        )
    for flag in given.flags:
        if flag in _OPTIONS and not given.flags.get("source"):
            raise ValueError(f"--{flag} goes with --source=FOLDER, which is missing")
        if flag == "archives" and given.flags.get("source"):
            raise ValueError("--archives and --source do not go together; give one")
    options = command_line.parse_flags(given.flags, _FLAGS)
    print(f"contact sheet: {prepare(given.rest[0], **options)}")


if __name__ == "__main__":
    command_line.start("prepare")
