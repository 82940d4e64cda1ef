"""What the site is made of: the repository's pages where they lie, and three made here.

Files keep their paths, so a link that works on GitHub works in the site. Notebooks and
the reference become pages, and whatever a page links to comes along as it is.
"""

import contextlib
import fnmatch
import functools
import importlib
import inspect
import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dib_jax.commands import optimizers, registry
from dib_jax.commands.command_line import load_config, override
from dib_jax.commands.config import FACTORIES, complete

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("", "docs/", "results/")  # whose Markdown files are pages
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
NOT_RUN = re.compile(r"^<!-- not run: (.*?) -->$", re.MULTILINE | re.DOTALL)
# What is used from Python, beside what configs find by name: page → title, objects.
# A package or module stands for all that it exports or defines.
FACES = {
    "python": ("Runs from Python", ("dib_jax.load", "dib_jax.commands.trained.Model")),
    "linear": ("Deep linear networks", ("dib_jax.linear",)),
    "analysis": ("Analysis", ("dib_jax.analysis",)),
    "data": ("Data sets", ("dib_jax.data",)),
}


def on_config(config: MkDocsConfig) -> None:
    """Find the pages and put them into the menu."""
    written = [
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in sorted((ROOT / folder).glob("*.md"))
    ]
    config.extra["made"] = {**dict(_notebooks(config.repo_url)), **dict(_reference())}
    config.extra["written"] = written
    config.nav = _expanded(config.nav, [*written, *config.extra["made"]])


def _expanded(nav: Any, pages: list[str]) -> Any:
    """The menu with pages in place of patterns; the longest pattern has the page."""
    named = re.findall(r"[\w./*-]+\.md", json.dumps(nav))
    patterns = sorted((n for n in named if "*" in n), key=len, reverse=True)

    def chosen(page: str) -> str:
        return next((p for p in patterns if _matches(page, p)), "")

    def walk(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: walk(below) for title, below in entry.items()}
        if isinstance(entry, list):
            below = (walk(one) for one in entry)
            return [x for y in below for x in (y if isinstance(y, list) else [y])]
        if "*" not in entry:
            return entry
        return [page for page in pages if page not in named and chosen(page) == entry]

    return walk(nav)


def _matches(page: str, pattern: str) -> bool:
    same_folder = page.count("/") == pattern.count("/")
    return same_folder and fnmatch.fnmatch(page, pattern)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the repository's files in place of those of one folder."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for uri in config.extra["written"]:
        files.append(_file(uri, config))
    for uri, text in config.extra["made"].items():
        files.append(File.generated(config, uri, content=text))
    for uri in sorted({"docs/site.css", *_linked(files)}):
        files.append(_file(uri, config))
    return files


def _file(uri: str, config: MkDocsConfig) -> File:
    return File(uri, str(ROOT), config.site_dir, config.use_directory_urls)


def _linked(files: Files) -> Iterator[str]:
    """The files of the repository that pages link to and that are no pages."""
    for file in files.documentation_pages():
        place = (ROOT / file.src_uri).parent
        for link in LINK.findall(_with_figure(file.content_string, file.src_uri)):
            path = (place / link).resolve()
            if path.is_file() and path.suffix != ".md" and ROOT in path.parents:
                yield path.relative_to(ROOT).as_posix()


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead to the pages of notebooks, and show why a block is not run."""
    uri = page.file.src_uri
    markdown = NOT_RUN.sub(r"*Not run by the tests: \1.*", markdown)
    if not uri.startswith("notebooks/"):
        markdown = re.sub(r"(\]\([^):]*)\.ipynb\)", r"\1.md)", markdown)
    return _with_figure(markdown, uri)


def _with_figure(markdown: str, uri: str) -> str:
    """A table of results with its figure, where it does not show it itself."""
    figure = (ROOT / uri).with_suffix(".png")
    if not figure.is_file() or figure.name in markdown:
        return markdown
    return f"{markdown}\n\n![{figure.stem.replace('_', ' ')}]({figure.name})\n"


def _notebooks(repository: str | None) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        badge, *rest = ("".join(_shown(cell)) for cell in cells)
        links = f"[Download]({path.name})"
        if repository:
            address = re.search(r"\((\S+)\)$", badge.strip())[1]
            mine = repository.removeprefix("https://github.com/").strip("/")
            links += f" · [Open in Colab]({address.replace('OWNER/dib_jax', mine)})"
        # The title comes first, then what a page of a site has no use for: setting up.
        title = next(i for i, text in enumerate(rest) if text.startswith("# "))
        heading, _, text = rest.pop(title).partition("\n")
        yield (
            f"notebooks/{path.stem}.md",
            "\n\n".join([heading, links, text.strip(), *rest]),
        )


def _shown(cell: dict[str, Any]) -> Iterator[str]:
    """A cell of a notebook as Markdown, with what it has put out."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for out in cell["outputs"]:
        data = out.get("data", {})
        if "image/png" in data:
            picture = "".join(data["image/png"]).replace("\n", "")
            yield f"\n\n![output](data:image/png;base64,{picture})"
        elif text := "".join(out.get("text", data.get("text/plain", ""))).rstrip():
            yield f"\n\n```text\n{text}\n```"


def _reference() -> Iterator[tuple[str, str]]:
    yield "reference/information.md", _information()
    for name, (title, objects) in FACES.items():
        yield f"reference/{name}.md", "\n\n".join([f"# {title}", *map(_entry, objects)])
    for section, package in FACTORIES.items():
        yield f"reference/{package.rpartition('.')[2]}.md", _factories(section, package)
    yield "reference/optimizers.md", _optimizers()


def _entry(name: str, *, level: int = 2, heading: bool = True) -> str:
    options = f"heading_level: {level}\n      show_root_heading: {str(heading).lower()}"
    return f"::: {name}\n    options:\n      {options}"


def _information() -> str:
    package = importlib.import_module("dib_jax.information")
    parts = ["# Information measures", inspect.getdoc(package) or ""]
    parts.append("In the examples `info` is this package and `jnp` is `jax.numpy`.")
    found: dict[str, list[str]] = {}
    for name in package.__all__:
        found.setdefault(getattr(package, name).__module__, []).append(name)
    for module, names in sorted(found.items(), key=lambda item: -len(item[1])):
        first = (importlib.import_module(module).__doc__ or "").partition("\n")[0]
        parts.append(f"## {first.partition(':')[0].rstrip('.')}")
        parts += [_entry(f"{package.__name__}.{name}", level=3) for name in names]
    return "\n\n".join(parts)


def _factories(section: str, folder: str) -> str:
    """What can be set in a section of a config, and what such a function gets."""
    title, package = folder.rpartition(".")[2].capitalize(), f"dib_jax.{folder}"
    module = importlib.import_module(package)
    parts = [f"# {title}", inspect.getdoc(module) or ""]
    for name in registry.known(folder):
        parts.append(_entry(f"{package}.{name}.{name}"))
        command = _command(section, name, registry.find(folder, name))
        parts.append(f"Example:\n\n```\n{command}\n```")
    if any(getattr(x, "__module__", "") == package for x in vars(module).values()):
        parts.append("## What all of them share")
        entry = _entry(package, level=3, heading=False)
        parts.append(f"{entry}\n      show_docstring_description: false")
    return "\n\n".join(parts)


@functools.cache
def _configs() -> dict[str, Any]:
    """Complete configs by path; first those that need no download, or a small one."""
    paths = sorted(
        (path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*.py")),
        key=lambda path: ("digits_cnn" not in path, "digits" not in path, path),
    )
    return {path: complete(load_config(str(ROOT / path)).config) for path in paths}


def _command(section: str, name: str, factory: Any) -> str:
    """A command that is accepted: of a config with that name, or with a change."""
    start = "python -m experiments.run --config="
    for path, config in _configs().items():
        if config[section].name == name:
            return f"{start}{path}"
    change, algorithms = {f"{section}.name": name}, registry.known("algorithms")
    tried = [change, *({**change, "algorithm.name": one} for one in algorithms)]
    is_of_graphs = "graph" in (inspect.getdoc(factory) or "").lower()
    for changes, (path, config) in itertools.product(tried, _configs().items()):
        if is_of_graphs and config.model.name != "gcn":
            continue
        with contextlib.suppress(ValueError):
            complete(override(load_config(str(ROOT / path)).config, changes))
            fields = (f" --config.{field}={value}" for field, value in changes.items())
            return f"{start}{path}{''.join(fields)}"
    raise ValueError(f"no config goes with {section}.name={name}")


def _optimizers() -> str:
    rows = [
        f"| `optimizer.{field}` | {', '.join(f'`{name}`' for name in names)} |"
        for field, names in (
            ("name", optimizers.OPTIMIZERS),
            ("schedule", optimizers.SCHEDULES),
        )
    ]
    table = "\n".join(["| field | values |", "|---|---|", *rows])
    entry = _entry("dib_jax.commands.optimizers.optimizer")
    return f"# Optimizers\n\n{table}\n\n{entry}"
