"""One self-contained HTML page: figures are inside it, nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Section(NamedTuple):
    """A heading with what belongs to it."""

    title: str
    text: str
    """Plain text: what is shown, sample sizes, corrections."""

    images: Sequence[bytes] = ()
    """PNG files."""

    table: Sequence[Sequence[str]] = ()
    """First row: headings."""


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color:
#222 } h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { max-width: 100%; display: block; margin: 1rem 0 } .wide { overflow-x: auto } table { border-collapse:
collapse; font-size: .85rem } th, td { padding: .25rem .6rem; text-align: right } th { border-bottom: 2px
solid #888 } td { border-bottom: 1px solid #eee } th:first-child, td:first-child { text-align: left }
"""


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.text)}</p>"]
    for image in section.images:
        data = base64.b64encode(image).decode()
        parts.append(f'<img alt="{escape(section.title)}" src="data:image/png;base64,{data}">')
    if section.table:
        head, *rows = section.table
        parts.append('<div class="wide"><table><tr>')
        parts += [f"<th>{escape(cell)}</th>" for cell in head]
        parts.append("</tr>")
        parts += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts.append("</table></div>")
    return "\n".join(parts)
