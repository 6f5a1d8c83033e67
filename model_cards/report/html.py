"""Pieces of an HTML page, with every text from files escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from ..text import one_line


def text(value: object, limit: int = 400) -> str:
    """Write a value as HTML text of one line, without access tokens."""
    return escape(one_line(value, limit))


def paragraph(content: str, kind: str = "") -> str:
    """Write a paragraph of HTML."""
    return f'<p class="{kind}">{content}</p>' if kind else f"<p>{content}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """Write a table that scrolls sideways on a narrow screen.

    Args:
        head: HTML of the header cells.
        rows: HTML of the other cells.
        numbers_from: Index of the first column of numbers; those are aligned to the right.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ('class="n"' if place >= numbers_from else "" for place in range(len(cells)))
        return "".join(f"<{tag} {kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Write a list of names and values."""
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"


def section(title: str, *parts: str) -> str:
    """Write a section with a heading; empty if all its parts are empty."""
    body = "".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""
