"""Data sets downloaded and written as array_record files, as TFDS writes them.

The files are those that the builder in TFDS of that name and version would write. So
plain `tfds.data_source(name)` reads them, and `load` reads what TFDS wrote elsewhere.
"""

import contextlib
import importlib
import io
import pkgutil
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import tqdm

from dib_jax.data import builders
from dib_jax.data.archives import fetch
from dib_jax.data.builders import Example, Examples
from dib_jax.data.messages import Report, did_you_mean
from dib_jax.data.prepared import find_prepared, quiet


def downloadable() -> tuple[str, ...]:
    """Names of the data sets that `prepare` can download."""
    names = sorted(module.name for module in pkgutil.iter_modules(builders.__path__))
    return tuple(name for name in names if hasattr(_module(name), "ARCHIVES"))


def is_downloadable(name: str) -> bool:
    """Whether `prepare` knows a name, also one like gtsrb48.

    Args:
        name: the data set's name.
    """
    try:
        _find(name)
    except ValueError:
        return False
    return True


def is_prepared(name: str, root: Path) -> bool:
    """Whether a folder of data sets holds a set, as array files or as TFDS' files.

    Args:
        name: the data set's name.
        root: the folder of data sets.
    """
    folder = root / name
    return (folder / "train.npz").exists() or find_prepared(folder) is not None


def prepare(
    name: str, root: Path, *, archives: str = "", report: Report = print
) -> Path:
    """Download a data set and write it into a folder of data sets, or find it there.

    Archives are stored in `<root>/downloads/<name>`. The set appears only when it is
    whole: it is written under another name and then renamed.

    Args:
        name: one of `downloadable`, or a set of one of them at another size: gtsrb48.
        root: the folder of data sets.
        archives: a folder with archives that need not be downloaded; "" for none.
        report: is called with each line for the user.

    Returns:
        The folder `<root>/<name>`.

    Raises:
        ValueError: the name is unknown, or an archive is damaged or not what it should
            be.
        FileNotFoundError: there is no folder `archives`.
        ConnectionError: an archive could not be downloaded; the message says what to
            do.
    """
    module, options = _find(name)
    if is_prepared(name, root):
        return root / name
    offered = Path(archives).expanduser() if archives else None
    if offered is not None and not offered.is_dir():
        raise FileNotFoundError(f"--archives: there is no folder {offered}")
    store = root / "downloads" / module.__name__.rpartition(".")[2]
    try:
        paths = {
            archive.name: fetch(archive, store, offered=offered, report=report)
            for archive in module.ARCHIVES
        }
    except ConnectionError as error:
        names = ", ".join(archive.name for archive in module.ARCHIVES)
        raise ConnectionError(
            f"data set {name!r} is not in {root}, and {error}; download {names} "
            f"elsewhere and run `python -m experiments.prepare {name} "
            f"--data_dir={root} --archives=DIR` with the folder that holds them"
        ) from error
    sources = ", ".join(map(str, paths.values()))
    written = _write(
        module.builder(**options), module.read(paths, **options), sources, root
    )
    report(f"{name}: written to {written}")
    return root / name


_Row = tuple[int, Example]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{builders.__name__}.{name}")


def _find(name: str) -> tuple[ModuleType, dict[str, int]]:
    known = downloadable()
    if name in known:
        return _module(name), {}
    sized = re.fullmatch(r"(\w+?)([1-9]\d*)", name)
    if sized and sized[1] in known and hasattr(_module(sized[1]), "SIZE"):
        module, size = _module(sized[1]), int(sized[2])
        if not 8 <= size <= 512 or size == module.SIZE:
            raise ValueError(
                f"{name!r}: pictures are stored with 8 to 512 pixels a side; at "
                f"{module.SIZE} the set's name is {sized[1]!r}"
            )
        return module, {"size": size}
    raise ValueError(
        f"data set {name!r} cannot be downloaded; those that can are "
        f"{', '.join(known)}{did_you_mean(name, known)}"
    )


def _write(base: Any, examples: Examples, source: str, root: Path) -> str:
    """Have TFDS write examples as its builder class would; the folder of the files."""
    import tensorflow_datasets as tfds  # slow, and only needed here
    from tensorflow_datasets.core import registered

    def split_generators(self: Any, dl_manager: object) -> dict[str, Iterator[_Row]]:
        del dl_manager  # TFDS would ask the network without a limit of time
        for key, names in examples.class_names.items():
            feature = self.info.features[key]
            if len(names) != feature.num_classes:
                raise ValueError(
                    f"{source}: {len(names)} names for the {feature.num_classes} "
                    f"classes of {key}"
                )
            feature.names = names
        splits = examples.splits.items()
        return {split: self._generate_examples(split, rows) for split, rows in splits}

    attributes = {
        # TFDS shuffles by name, version and row number, so these stay what they are.
        "name": base.name,
        "__module__": base.__module__,  # beside which TFDS looks for its notes
        "_split_generators": split_generators,
        "_generate_examples": staticmethod(_numbered),
    }
    with registered.skip_registration():
        subclass = type(base.__name__, (base,), attributes)
    tfds.disable_progress_bar()  # its bars say nothing of how much there is
    silent = contextlib.redirect_stdout(io.StringIO())
    with quiet(), silent, tempfile.TemporaryDirectory() as unused:
        builder = subclass(data_dir=root, file_format="array_record")
        builder.download_and_prepare(download_dir=unused)
    return str(builder.data_path)


def _numbered(split: str, rows: Iterable[Example]) -> Iterator[_Row]:
    bar = tqdm.tqdm(rows, desc=split, unit=" pictures", disable=None, leave=False)
    yield from enumerate(bar)
