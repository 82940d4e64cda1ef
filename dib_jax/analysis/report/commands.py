"""Sections on settings and on how to make the run again."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dib_jax.analysis import page
from dib_jax.analysis.page import Section, escape
from dib_jax.analysis.report import wording
from dib_jax.analysis.report.material import Maker, Material
from dib_jax.analysis.runs import Run
from dib_jax.settings import flatten


def _settings(material: Material) -> Section | None:
    groups: dict[str, dict[str, str]] = {"run": {}}
    for name, value in material.run.config.items():
        if isinstance(value, Mapping):
            # The name says what the other options belong to.
            items = sorted(flatten(value).items(), key=lambda item: item[0] != "name")
            groups[name] = {key: wording.setting(item) for key, item in items}
        else:
            groups["run"][name] = wording.setting(value)
    html = "".join(page.pairs(name, items) for name, items in groups.items() if items)
    return Section("settings", "Settings", f'<div class="columns">{html}</div>')


def _reproduce(material: Material) -> Section | None:
    results = material.run.results
    html = page.command(_lines(_words(material.command)))
    if material.baseline is None and not material.run.end_to_end:
        html += "<p>The end-to-end baseline, in a folder beside this run:</p>"
        html += page.command(_lines(_baseline_words(material)))
    for key in ("hardware", "versions"):
        value = results.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {each}" for name, each in value.items())
        if value:
            html += f"<p>{key.capitalize()}: {escape(value)}.</p>"
    html += page.note(
        "The same config, seed and machine give the same bits. The training curves are "
        "in metrics.jsonl, all numbers in results.json, the full config in "
        "config.json, the figures as PNG in figures/, beside this page."
    )
    return Section("reproduce", "To reproduce", html)


def full_command(run: Run) -> str:
    """A command that sets every field, since a config file may have changed since."""
    flags = [
        f"--config.{name}={_flag(value)}"
        for name, value in flatten(run.config).items()
        if name != "workdir" and value != {}
    ]
    file = f"configs/{run.results.get('config_name')}.py"
    return " ".join(["python -m experiments.run", f"--config={_quoted(file)}", *flags])


def _flag(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return _quoted(str(value))


def _quoted(word: str) -> str:
    return shlex.quote(word) if word else ""


def _words(command: str) -> list[str]:
    """The words of a command; the program with its module is one of them."""
    try:
        split = shlex.split(command.replace("\\\n", " "))
    except ValueError:
        return [command]  # a quote is left open: shown as it was given
    words = []
    for word in split:
        name, has_value, value = word.partition("=")
        words.append(f"{name}={_quoted(value)}" if has_value else _quoted(word))
    first = next((i for i, word in enumerate(words) if word.startswith("--")), None)
    return [" ".join(words[:first]), *words[first:]] if first else words


def _lines(words: Sequence[str]) -> str:
    """A command on one line, or on one line for each word where that is too long."""
    line = " ".join(words)
    return line if len(line) <= 76 else " \\\n    ".join(words)


def _baseline_words(material: Material) -> list[str]:
    """The words of the run's command, with another algorithm and folder."""
    run = material.run
    dropped, epochs = ["--workdir", "--config.workdir"], []
    if isinstance(each := run.config.get("epochs"), list):
        # One number per stage means nothing to a network that trains as a whole.
        dropped.append("--config.epochs")
        epochs = [f"--config.epochs={sum(each)}"]
    folder = run.workdir.with_name(f"{run.workdir.name}-{run.counterpart}")
    shown = os.path.relpath(folder)
    if shown.startswith(".."):  # not as one would type it here
        shown = str(folder)
    others = []
    words = iter(_words(material.command))
    for word in words:
        name, has_value, _ = word.partition("=")
        # The options of one algorithm are not those of another.
        if name not in dropped and not name.startswith("--config.algorithm."):
            others.append(word)
        elif not has_value:
            next(words, None)  # its value is the next word
    algorithm = f"--config.algorithm.name={run.counterpart}"
    return [*others, *epochs, algorithm, f"--workdir={_quoted(shown)}"]


SECTIONS: tuple[Maker, ...] = (_settings, _reproduce)
