"""README, card and report in a real browser, on a screen and on a phone: nothing is wider than the page."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import chromium
from helpers.paths import ROOT

SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "screenshots.py"))


def test_markdown_becomes_a_page_without_the_metadata() -> None:
    page = SCRIPT["like_github"](
        "---\nlicense: mit\n---\n# A\n\n<details>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n</details>\n"
    )
    assert "license" not in page and "<h1>A</h1>" in page
    assert "<td>1</td>" in page and "<details>" in page


@pytest.mark.slow  # it starts a browser
def test_everything_fits(tmp_path: Path) -> None:
    pages = SCRIPT["file_pages"](tmp_path)
    with chromium() as browser:
        for name in ("readme", "card", "report", "comparison"):
            address = pages[name]()
            for width in SCRIPT["WIDTHS"]:
                assert SCRIPT["look"](browser, address, width, "light", None) == [], (name, width)


@pytest.mark.slow  # it starts a browser
def test_what_does_not_fit_is_found(tmp_path: Path) -> None:
    wide = "| " + " | ".join("averyverylongword" for _ in range(9)) + " |\n" + "|---" * 9 + "|\n"
    page = tmp_path / "page.html"
    page.write_text(SCRIPT["like_github"](f"# A\n\n{wide}\n<img src='nowhere.png'>\n"), encoding="utf-8")
    with chromium() as browser:
        found = SCRIPT["look"](browser, page.as_uri(), 390, "light", None)
    assert any("a table is wider" in line for line in found)
    assert any("no words" in line for line in found)
