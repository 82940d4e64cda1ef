"""A self-contained HTML page: its style and the few elements that reports are made of.

A page needs nothing but itself: pictures are data URIs, there is no script, and a
content security policy keeps it from loading anything. Text is escaped; only `lead`,
`footer` and the `html` of a section are taken as they are.
"""

import base64
import html as _html
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
    return _html.escape(str(value), quote=True)


def data_uri(kind: str, content: bytes) -> str:
    """A file as an address that holds it.

    Args:
        kind: its media type, such as `image/png`.
        content: the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(
    wide: tuple[str, bytes],
    narrow: tuple[str, bytes],
    *,
    width: int,
    alt: str,
    caption: str = "",
) -> str:
    """A figure that comes in two widths, of which the screen takes one.

    Args:
        wide: media type and file for pages wider than a phone.
        narrow: the same for phones.
        width: of the wide one, in CSS pixels (96 to the inch).
        alt: what there is to see, for those who cannot.
        caption: below it.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure style="max-width: min(100%, {width}px)"><picture>'
        f'<source media="(max-width: 640px)" srcset="{data_uri(*narrow)}">'
        f'<img src="{data_uri(*wide)}" width="{width}" alt="{escape(alt)}">'
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
        kind = "" if column in text else ' class="number"'
        return f"<{tag}{kind}>{'–' if value is None else escape(value)}</{tag}>"

    def line(tag: str, values: Sequence[Any]) -> str:
        return (
            f"<tr>{''.join(cell(tag, i, value) for i, value in enumerate(values))}</tr>"
        )

    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide{" tall" * (len(rows) > 24)}" tabindex="0"><table>{above}'
        f"<thead>{line('th', header)}</thead>"
        f"<tbody>{''.join(line('td', row) for row in rows)}</tbody></table></div>"
    )


def pairs(title: str, values: Mapping[str, Any]) -> str:
    """Names and values, one below the other, under a small heading.

    Args:
        title: the heading; none where it is empty.
        values: shown as `str`.
    """
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in values.items()
    )
    return f'<div class="pairs">{heading}<dl>{lines}</dl></div>'


def facts(values: Mapping[str, Any]) -> str:
    """A few names, each with a phrase beside it.

    Args:
        values: shown as `str`.
    """
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in values.items()
    )
    return f'<dl class="facts">{lines}</dl>'


def folded(title: str, html: str) -> str:
    """What unfolds at a click, without a script; on paper it is left out.

    Args:
        title: plain text to click on.
        html: what it hides.
    """
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def command(text: str) -> str:
    """A command to copy."""
    return f"<pre><code>{escape(text)}</code></pre>"


def page(
    title: str, *, subtitle: str, lead: str, sections: Sequence[Section], footer: str
) -> str:
    """The whole page.

    Args:
        title: plain text.
        subtitle: plain text, below the title.
        lead: HTML between the title and the first section.
        sections: in order; a page of several gets a line of links to them.
        footer: HTML.

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
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="subtitle">{escape(subtitle)}</p></header>\n'
        f"<main>\n{lead}\n"
        f'<nav aria-label="Sections">{links}</nav>\n'
        f"{body}</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light; --ink: #1d1f23; --soft: #5b6169; --rule: #dfe2e6;
  --wash: #f6f7f9; --blue: #0072b2; --red: #b34700; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 832px; padding: 40px 16px 48px; background: #fff;
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; font-weight: 650;
  letter-spacing: -0.01em; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 12px; font-weight: 650; }
h3 { font-size: 15px; margin: 24px 0 8px; font-weight: 650; }
p { margin: 0 0 12px; max-width: 44em; }
a { color: var(--blue); }
.subtitle, .note, figcaption, caption { color: var(--soft); }
.subtitle { margin-top: 6px; }
.note, figcaption, caption { font-size: 14px; line-height: 1.45; }
section { margin-top: 48px; scroll-margin-top: 16px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 28px 0 0; padding: 10px 0;
  border-top: 1px solid var(--rule); border-bottom: 1px solid var(--rule);
  font-size: 14px; }
nav a { color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--blue); text-decoration: underline; }
.results { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr));
  gap: 20px 32px; margin: 28px 0 24px; }
.result .value { display: block; font-size: 52px; line-height: 1.1; font-weight: 600;
  letter-spacing: -0.02em; white-space: nowrap; color: var(--blue);
  font-variant-numeric: tabular-nums; }
.result.other .value { color: var(--ink); font-weight: 400; }
.result .unit { font-size: 0.55em; margin-left: 0.12em; }
.result .label { font-weight: 600; }
.result .detail { display: block; color: var(--soft); font-size: 14px; }
.facts { display: grid; grid-template-columns: auto 1fr; gap: 5px 24px;
  margin: 0 0 18px; font-size: 15px; line-height: 1.45; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start; }
.beside > * { max-width: 100%; }
figure { margin: 0 0 20px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: 8px; max-width: 50em; }
details { margin: 0 0 16px; font-size: 14px; }
summary { color: var(--blue); cursor: pointer; margin-bottom: 8px; }
.wide { overflow-x: auto; margin: 0 0 16px; }
.wide.tall { max-height: 560px; overflow-y: auto; }
.wide.tall thead th { position: sticky; top: 0; background: #fff; }
table { border-collapse: collapse; font-size: 14.5px; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th, td { text-align: left; padding: 6px 20px 6px 0; white-space: nowrap;
  border-bottom: 1px solid var(--rule); vertical-align: bottom; }
th { font-weight: 600; color: var(--soft); font-size: 13px; white-space: normal; }
th.number, td.number { text-align: right; }
th:last-child, td:last-child { padding-right: 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr));
  gap: 18px 14px; margin: 0 0 20px; }
.card { font-size: 13px; line-height: 1.35; break-inside: avoid; }
.card img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--wash); margin-bottom: 5px; }
.card img.small { image-rendering: pixelated; }
.card b { font-weight: 600; }
.card .wrong { color: var(--red); }
.card span { display: block; overflow-wrap: anywhere; }
.columns { columns: 3 220px; column-gap: 36px; margin-bottom: 8px; }
.pairs { break-inside: avoid; padding-bottom: 14px; font-size: 14px; line-height: 1.4; }
.pairs h3 { margin: 0 0 4px; font-size: 14px; }
.pairs dl { display: grid; grid-template-columns: auto 1fr; gap: 3px 16px; margin: 0;
  font-variant-numeric: tabular-nums; }
.pairs dt { color: var(--soft); }
.pairs dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
pre { background: var(--wash); border: 1px solid var(--rule); border-radius: 4px;
  padding: 10px 12px; margin: 0 0 14px; overflow-x: auto;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
p code { font-size: 0.92em; white-space: nowrap; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--rule);
  color: var(--soft); font-size: 14px; }
@media (max-width: 640px) {
  body { padding-top: 24px; }
  h1 { font-size: 25px; }
  .result .value { font-size: 44px; }
  .facts { column-gap: 16px; }
  .cards { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); }
  th, td { padding-right: 16px; }
}
@media print {
  @page { margin: 16mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, details { display: none; }
  .result .value { font-size: 40px; }
  .pairs { font-size: 12px; }
  section { margin-top: 28px; }
  h2, h3 { break-after: avoid; }
  figure, tr, pre { break-inside: avoid; }
  .wide, .wide.tall { overflow: visible; max-height: none; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .cards { grid-template-columns: repeat(6, 1fr); }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
