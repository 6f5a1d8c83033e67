"""Write text from data (names of classes, data sets, files) as Markdown that shows it and does nothing else."""

import re
import unicodedata
from collections.abc import Sequence

from .secrets import hide_secrets

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,/%=;?")
SLUG = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def one_line(value: object, limit: int = 200) -> str:
    """Write a value as one line of at most `limit` printable characters, without access tokens."""
    kept = (" " if char.isspace() else char for char in str(value)[: 20 * limit])
    text = "".join(char for char in kept if unicodedata.category(char)[0] != "C")
    text = hide_secrets(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(value: object, limit: int = 200) -> str:
    """Write a value as inline Markdown that shows exactly its text.

    Every character that Markdown, HTML or the Hub could interpret is written as a character reference, which by the
    CommonMark specification is never interpreted. Full stops, hyphens, colons and underscores inside a word stay
    readable.
    """
    text = one_line(value, limit)
    found = []
    for place, char in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        inside = before.isalnum() and after.isalnum()
        # "www.x" and "http:" would become links anywhere in a text.
        link = text[max(0, place - 3) : place].lower() == "www"
        keep = char in _SAFE or (char.isalnum() and ord(char) > 127) or (char in "-_.:" and inside and not link)
        keep = keep or (char in ".-" and before == " " and after.isdigit()) or (char == "." and not after and not link)
        found.append(char if keep else f"&#{ord(char)};")
    return "".join(found)


def spoken(name: str) -> str:
    """Say the name of a stage or level as a person would: "stage2.local" is "stage 2, local"."""
    together = {"all": "all stages", "total": "all levels together"}
    if name in together:
        return together[name]
    stage, _, kind = name.partition(".")
    stage = re.sub(r"^([A-Za-z]+)[_.]?(\d+)$", r"\1 \2", stage)
    return f"{stage}, {kind}" if kind else stage


def code(value: object, limit: int = 200) -> str:
    """Write a value as an inline code span, or with `plain` if it contains a character that a span cannot contain."""
    text = one_line(value, limit)
    return plain(text, limit) if not text or re.search(r"[`|<>]", text) else f"`{text}`"


def fence(text: str, language: str = "") -> str:
    """Write a fenced code block that its content cannot close. Tokens are hidden, control characters removed."""
    lines = ("".join(c for c in line if c == "\t" or unicodedata.category(c)[0] != "C") for line in text.splitlines())
    body = hide_secrets("\n".join(lines)).replace("<!--", "<!- -")
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", body)), default=0))
    return f"{ticks}{language}\n{body}\n{ticks}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """Write a Markdown table from cells of Markdown. Columns from index `numbers_from` on are right-aligned."""
    marks = ["---"] * numbers_from + ["---:"] * (len(header) - numbers_from)
    lines = [list(header), marks, *[list(row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quantity(value: float) -> str:
    """Write a count with thousands separators."""
    return f"{int(value):,}"


def duration(seconds: float) -> str:
    """Write a time span in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def hide_paths(text: str) -> str:
    """Shorten absolute paths to their last part, because a card should not show the folders of a machine."""
    return re.sub(r"(?<![\w./:])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;]+)+[/\\]([^\s/\\'\",;]+)", r".../\1", text)


def shown_dataset(name: object) -> str:
    """Show the name of a data set or model without its local folders. A Hub name may end with `@REVISION`."""
    text = one_line(name)
    on_hub = SLUG.fullmatch(text.split("@")[0])
    return text if on_hub else re.split(r"[/\\]", text.rstrip("/\\"))[-1] or "a local folder"
