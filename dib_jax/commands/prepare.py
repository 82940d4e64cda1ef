"""Get a data set ready, and show what is in it.

python -m experiments.prepare NAME [--data_dir=DIR] [--archives=DIR]
python -m experiments.prepare NAME --source=FOLDER [--data_dir=DIR] [--size=256]
    [--classes=A,B,…] [--test_fraction=0.2] [--skip_bad_boxes=False]
"""

import pathlib
from typing import Any

from dib_jax.commands import command_line

_PURPOSE = (
    "Downloads a data set, or takes a folder of annotated pictures, writes it into the "
    "folder of data sets, and draws a contact sheet of pictures with labels and boxes."
)
_OPTIONS = {
    "size": (int, "side of the stored pictures, in pixels (256)"),
    "classes": (tuple[str, ...], "names of the classes, in order (those found)"),
    "test_fraction": (float, "part held out where there is no test folder (0.2)"),
    "skip_bad_boxes": (bool, "leave pictures with a bad box out (False)"),
}
_FLAGS = {
    "data_dir": (str, "folder of data sets (TFDS_DATA_DIR, ~/tensorflow_datasets)"),
    "archives": (str, "folder of archives that need not be downloaded"),
    "source": (str, "folder of pictures with Pascal VOC or YOLO annotations; then:"),
    **_OPTIONS,
}


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
        source: folder of annotated pictures.
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
    if source:
        if name in (*data.known_names(), *preparation.downloadable()):
            raise ValueError(f"{name!r} is the name of another set; choose your own")
        write_annotated(pathlib.Path(source).expanduser(), folder, **options)
    elif name in data.known_names():
        raise ValueError(f"{name!r} is embedded: there is nothing to prepare")
    elif preparation.is_prepared(name, root):
        print(f"{name} is already in {folder}")
    else:
        preparation.prepare(name, root, archives=archives)
    dataset = data.load(name, data_dir=str(root), val_fraction=0)
    sheet = folder / "contact_sheet.png"
    write_contact_sheet(dataset, sheet)
    counts = ", ".join(
        f"{split} {len(arrays['labels'])}"
        for split, arrays in (("train", dataset.train), ("test", dataset.test))
    )
    shape = "x".join(map(str, dataset.train["images"].shape[1:]))
    print(f"{counts} pictures of {shape}, {len(dataset.class_names)} classes")
    print(describe_duplicates(dataset))
    return sheet


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(arguments, tuple(_FLAGS), rest="a name")
    if given.help:
        print(_usage())
        return
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
    types = {flag: annotation for flag, (annotation, _) in _FLAGS.items()}
    options = command_line.parse_flags(given.flags, types)
    print(f"contact sheet: {prepare(given.rest[0], **options)}")


def _usage() -> str:
    from dib_jax.data.preparation import downloadable

    about = {
        "NAME": f"{', '.join(downloadable())}; gtsrb48 is gtsrb with pictures of "
        "48x48; with --source any name",
        **{f"--{flag}=VALUE": meaning for flag, (_, meaning) in _FLAGS.items()},
    }
    line = f"python -m {command_line.called('prepare')} NAME [--FLAG=VALUE …]"
    return command_line.usage(line, _PURPOSE, about)


if __name__ == "__main__":
    command_line.start("prepare")
