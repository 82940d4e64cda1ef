"""A self-contained HTML page: the few elements that reports are made of.

A page needs nothing but itself: pictures are data URIs, there is no script, and a
content security policy keeps it from loading anything. Text is escaped; only `lead`,
`footer` and the `html` of a section are taken as they are. Its style is page.css.
"""

import base64
import html as _html
import importlib.resources
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        name: its anchor, a word.
        title: its heading, plain text.
        html: its body.
    """

    name: str
    title: str
    html: str


def escape(value: Any) -> str:
    """Text that means itself in HTML, in attributes too."""
    # The name of a file need not be text: what is none of it is spelt out.
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return _html.escape(text, quote=True)


def data_uri(kind: str, content: bytes) -> str:
    """A file as an address that holds it.

    Args:
        kind: its media type, such as `image/png`.
        content: the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(
    kind: str, wide: bytes, narrow: bytes, *, width: int, alt: str, caption: str = ""
) -> str:
    """A figure that comes in two widths, of which the screen takes one.

    Args:
        kind: media type of both files.
        wide: the file for pages wider than a phone.
        narrow: the file for phones.
        width: of the wide one, in CSS pixels (96 to the inch).
        alt: what there is to see, for those who cannot.
        caption: below it.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure style="max-width: min(100%, {width}px)"><picture>'
        f'<source media="(max-width: 640px)" srcset="{data_uri(kind, narrow)}">'
        f'<img src="{data_uri(kind, wide)}" width="{width}" alt="{escape(alt)}">'
        f"</picture>{below}</figure>"
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    text: Collection[int] = (),
    caption: str = "",
) -> str:
    """A table; it scrolls in its place where it is too wide, or far too long.

    Args:
        header: a heading for each column.
        rows: cells, shown as `str`; None as a dash.
        text: numbers of the columns that hold words; the others are aligned as numbers.
        caption: above it.
    """

    def cell(tag: str, column: int, value: Any) -> str:
        words = "–" if value is None else escape(value)
        if column in text:  # a long name breaks where it is made of words
            return f"<{tag}>{words.replace('_', '_<wbr>')}</{tag}>"
        return f'<{tag} class="number">{words}</{tag}>'

    def line(tag: str, values: Sequence[Any]) -> str:
        cells = (cell(tag, column, value) for column, value in enumerate(values))
        return f"<tr>{''.join(cells)}</tr>"

    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide{" tall" * (len(rows) > 24)}" tabindex="0"><table>{above}'
        f"<thead>{line('th', header)}</thead>"
        f"<tbody>{''.join(line('td', row) for row in rows)}</tbody></table></div>"
    )


def pairs(title: str, values: Mapping[str, Any]) -> str:
    """Names and values, one below the other, under a small heading.

    Args:
        title: the heading.
        values: shown as `str`.
    """
    heading = f"<h3>{escape(title)}</h3>"
    return f'<div class="pairs">{heading}<dl>{_terms(values)}</dl></div>'


def facts(values: Mapping[str, Any]) -> str:
    """A few names, each with a phrase beside it.

    Args:
        values: shown as `str`.
    """
    return f'<dl class="facts">{_terms(values)}</dl>'


def _terms(values: Mapping[str, Any]) -> str:
    return "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in values.items()
    )


def folded(title: str, html: str) -> str:
    """What unfolds at a click, without a script; on paper it is left out.

    Args:
        title: plain text to click on.
        html: what it hides.
    """
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def note(html: str) -> str:
    """A remark in small type, of HTML."""
    return f'<p class="note">{html}</p>'


def command(text: str) -> str:
    """A command to copy."""
    return f"<pre><code>{escape(text)}</code></pre>"


def page(
    title: str,
    *,
    subtitle: str,
    lead: str,
    sections: Sequence[Section],
    footer: str,
    wide: bool = False,
    refresh: int = 0,
    images: str = "data:",
) -> str:
    """The whole page.

    Args:
        title: plain text.
        subtitle: plain text, below the title.
        lead: HTML between the title and the first section.
        sections: in order; a page of several gets a line of links to them.
        footer: HTML.
        wide: whether tables may be as wide as the screen.
        refresh: seconds after which a reader's copy is loaded again; 0 for never.
        images: where they may be from, in the words of a content security policy.

    Returns:
        A complete HTML 5 document.
    """
    links = "".join(
        f'<a href="#{escape(part.name)}">{escape(part.title)}</a>' for part in sections
    )
    body = "".join(
        f'<section id="{escape(part.name)}"><h2>{escape(part.title)}</h2>'
        f"{part.html}</section>\n"
        for part in sections
    )
    kind = ' class="broad"' if wide else ""
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    style = importlib.resources.files("dib_jax.analysis").joinpath("page.css")
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"{kind}>\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src {images}; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{again}"
        f"<title>{escape(title)}</title>\n<style>\n{style.read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="subtitle">{escape(subtitle)}</p></header>\n'
        f"<main>\n{lead}\n"
        f'<nav aria-label="Sections">{links}</nav>\n'
        f"{body}</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
    )
