"""Tables, figures and examples as HTML, whatever they are of."""

import io
import pathlib

from PIL import Image

from dib_jax.analysis import figures, page
from dib_jax.analysis.figures import Rendered
from dib_jax.analysis.page import Section, escape
from dib_jax.tasks import exhibits, style
from dib_jax.tasks.pictures import viewable

_SMALL, _THUMBNAIL = 96, 192  # pixels a side


def section(workdir: pathlib.Path, exhibit: exhibits.Exhibit) -> Section:
    """An exhibit as a section of the page; its figures are saved as PNG.

    Args:
        workdir: of the run.
        exhibit: what is shown.
    """
    html, parts = "", list(exhibit.parts)
    while parts:
        part = parts.pop(0)
        made = _part(workdir, part)
        after = parts[0] if parts and isinstance(part, exhibits.Drawing) else None
        if isinstance(after, exhibits.Table):
            made = f'<div class="beside">{made}<div>{table(after)}</div></div>'
            del parts[0]
        html += made
    return Section(exhibit.name, exhibit.title, html)


def _part(workdir: pathlib.Path, part: exhibits.Part) -> str:
    if isinstance(part, exhibits.Drawing):
        return drawing(workdir, part)
    if isinstance(part, exhibits.Table):
        return table(part)
    if isinstance(part, exhibits.Examples):
        return _examples(workdir, part)
    if isinstance(part, str):
        return page.note(escape(part))
    words = ", ".join(
        f'<b style="color: {escape(color)}">{escape(name)}</b> {escape(meaning)}'
        for color, name, meaning in part.entries
    )
    return page.note(f"{words}.")


def drawing(workdir: pathlib.Path, drawn: exhibits.Drawing) -> str:
    """A figure, saved as figures/NAME.png, as HTML."""
    made = figures.render(drawn)
    figures.save(workdir, [made], endings=["png"])
    return figure(made)


def figure(made: Rendered) -> str:
    """A figure; its animation and its numbers unfold below it."""
    drawn, width = made.drawing, round(96 * made.width)
    html = _heading(drawn.title) + page.figure(
        *made.page, width=width, alt=drawn.alt, caption=drawn.caption
    )
    if made.gif is not None:
        film = page.data_uri("image/gif", made.gif)
        film = f'<figure><img src="{film}" alt="{escape(drawn.alt)}"></figure>'
        html += page.folded("As a film, probe by probe", film)
    if drawn.table is not None:
        html += page.folded("The numbers", table(drawn.table))
    return html


def _heading(title: str) -> str:
    return f"<h3>{escape(title)}</h3>" if title else ""


def table(shown: exhibits.Table) -> str:
    """A table; its numbers to four digits."""
    rows = [[_cell(value) for value in row] for row in shown.rows]
    words = shown.words
    if words is None:
        words = tuple(
            {i for row in shown.rows for i, x in enumerate(row) if isinstance(x, str)}
        )
    return page.table(shown.header, rows, text=words, caption=shown.title)


def _cell(value: exhibits.Cell) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else value


def _examples(workdir: pathlib.Path, examples: exhibits.Examples) -> str:
    """Examples as cards; those that are pictures are saved as figures/NAME.png, too."""
    items = examples.items
    html = _heading(examples.title)
    html += page.note(escape(examples.note)) if examples.note else ""
    pictures = [item.picture for item in items if item.picture is not None]
    if pictures and len(pictures) == len(items):
        captions = [
            "\n".join(f"{line.text} {line.value}".strip() for line in item.lines)
            for item in items
        ]
        with style.readable():
            content = figures.png(figures.picture_grid(pictures, captions))
        figures.write(workdir, f"{examples.name}.png", content)
    return html + f'<div class="cards">{"".join(map(_card, items))}</div>'


def _card(item: exhibits.Example) -> str:
    name = f"Test sample {item.sample}"
    html = f"<span>{name}</span>"
    if item.picture is not None:
        small = " class=small" * (max(item.picture.shape[:2]) < _SMALL)
        buffer = io.BytesIO()
        picture = Image.fromarray(viewable(item.picture))
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.save(buffer, format="PNG", optimize=True)
        source = page.data_uri("image/png", buffer.getvalue())
        html = f'<img{small} src="{source}" alt="{name}">'
    return f'<div class="card">{html}{"".join(map(_line, item.lines))}</div>'


def _line(line: exhibits.Line) -> str:
    value = f" <b>{escape(line.value)}</b>" if line.value else ""
    kind, mark = (" class=wrong", "✗ ") if line.wrong else ("", "")
    return f"<span{kind}>{mark}{escape(line.text)}{value}</span>"
