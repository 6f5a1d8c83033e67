"""Reading a card apart: shared by the tests of cards."""

import re
from typing import Any

import yaml

FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def metadata(text: str) -> dict[str, Any]:
    """The YAML block of a card."""
    return yaml.safe_load(FRONT.match(text).group(1))


def sections(text: str) -> dict[str, str]:
    """Heading of the second level to what stands below it."""
    parts = re.split(r"(?m)^## (.+)$", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
