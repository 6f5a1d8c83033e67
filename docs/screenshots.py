"""Take pictures of everything that people look at, on a screen and on a phone, and say what does not fit.

    make docs && python docs/screenshots.py [--only readme card ...] [--output build/screenshots]

Needs Chromium (Debian's package `chromium`) and the `dev` extra. Each page is opened at 1,280 and at 390 pixels, in
light and in dark, and saved as NAME-WIDTH-SCHEME.png. README and card are rendered as GitHub does: CommonMark with
tables, and a style like GitHub's. Exit code 1 if anything is wider than the page, a picture has no words for those who
do not see it, or the browser reports an error.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from ladder_model_cards import write_report
from ladder_model_cards.figures.style import css

ROOT = Path(__file__).parents[1]
BACKBONE = ROOT / "model_cards" / "backbones" / "imagenette96-ladder"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
GITHUB = """
body { margin: 0 auto; padding: 24px; max-width: 838px; box-sizing: border-box; font: 16px/1.5 var(--font);
  color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1, h2 { padding-bottom: .3em; border-bottom: 1px solid var(--rule); } a { color: var(--c0); }
table { display: block; width: max-content; max-width: 100%; overflow: auto; border-collapse: collapse; }
th, td { padding: 6px 13px; border: 1px solid var(--rule); } img { max-width: 100%; }
pre { padding: 16px; overflow: auto; font-size: 85%; background: var(--mark); border-radius: 6px; }
code { font-size: 85%; background: var(--mark); padding: .2em .4em; border-radius: 6px; }
pre code { padding: 0; font-size: 100%; }
@media (max-width: 600px) { body { padding: 16px; } }
"""
PROBLEMS = """() => {
  document.querySelectorAll("details").forEach(folded => folded.open = true);
  const found = [], wide = document.documentElement.clientWidth;
  const page = document.documentElement.scrollWidth;
  if (page > wide + 1) found.push(`the page is ${page} pixels wide`);
  for (const table of document.querySelectorAll("table")) {
    const box = table.closest(".scroll, .md-typeset__scrollwrap") || table;
    if (box.clientWidth && table.scrollWidth > box.clientWidth + 1)
      found.push(`a table is wider than the page: ${table.innerText.slice(0, 60).replace(/\\s+/g, " ")}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.hasAttribute("alt")) found.push(`no words for ${image.src.slice(-60)}`);
    if (image.complete && !image.naturalWidth && image.src) found.push(`no picture at ${image.src.slice(-60)}`);
  }
  return found;
}"""


def chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def like_github(markdown: str, base: str = "") -> str:
    """Render Markdown as a page that looks like GitHub's, without the YAML block of a card.

    Args:
        markdown: The text.
        base: Address against which its links and pictures are resolved.
    """
    from markdown_it import MarkdownIt

    if markdown.startswith("---\n"):
        markdown = markdown.split("\n---\n", 1)[1]
    body = MarkdownIt("commonmark").enable("table").render(markdown)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!doctype html><html lang="en"><head>{head}<base href="{escape(base)}"><title>page</title>' + (
        f"<style>{css()}{GITHUB}</style></head><body>{body}</body></html>"
    )


def file_pages(work: Path) -> dict[str, Callable[[], str]]:
    """Name to a function that makes a page and returns its address."""

    def markdown(path: Path) -> str:
        target = work / f"{path.parent.name}-{path.stem}.html"
        page = like_github(path.read_text(encoding="utf-8"), f"{path.parent.as_uri()}/")
        target.write_text(page, encoding="utf-8")
        return target.as_uri()

    def site() -> str:
        page = ROOT / "build" / "site" / "index.html"
        if not page.is_file():
            raise SystemExit("no build/site: run `make docs` first")
        return page.as_uri()

    return {
        "readme": lambda: markdown(ROOT / "README.md"),
        "card": lambda: markdown(BACKBONE / "README.md"),
        "report": lambda: write_report(BACKBONE, work / "report.html").as_uri(),
        "comparison": lambda: write_report(ROOT / "docs/study/imagenette96", work / "comparison.html").as_uri(),
        "docs": site,
    }


@contextlib.contextmanager
def served(work: Path) -> Iterator[str]:
    """The address of `ladder explore`, started for the backbone in the box on scikit-learn's digits."""
    command = [sys.executable, "-m", "ladder_training", "explore", "--model", str(BACKBONE), "--dataset", "digits"]
    command += ["--beside", "untrained", "--output", str(work / "explore"), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield next(line.split()[1] for line in process.stdout if line.startswith("open "))
    finally:
        process.terminate()
        process.wait(30)


def look(browser: Any, address: str, width: int, scheme: str, picture: Path | None) -> list[str]:
    """Open a page, save its picture, and list what is wrong with it.

    Args:
        browser: Playwright's.
        address: Of the page.
        width: Of the window in pixels.
        scheme: "light" or "dark".
        picture: The PNG file; None takes no picture.
    """
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address, wait_until="domcontentloaded")
    if address.startswith("http"):
        tab.wait_for_selector("#similar-0 img", timeout=60_000)
        box = tab.locator("#seen img").first.bounding_box()
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.wait_for_selector("#places-0 img", timeout=60_000)
    tab.wait_for_timeout(700)
    if picture is not None:
        tab.screenshot(path=str(picture), full_page=True)
    found = [*errors, *tab.evaluate(PROBLEMS)]
    tab.close()
    return found


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["readme", "card", "report", "comparison", "docs", "explore"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "screenshots")
    options = parser.parse_args()
    program = chromium()
    if program is None:
        raise SystemExit("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    options.output.mkdir(parents=True, exist_ok=True)
    problems = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        pages = file_pages(work)
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=program, args=FLAGS)
        for name in options.only:
            address = pages[name]() if name in pages else stack.enter_context(served(work))
            for width in WIDTHS:
                for scheme in SCHEMES:
                    picture = options.output / f"{name}-{width}-{scheme}.png"
                    found = look(browser, address, width, scheme, picture)
                    problems += len(found)
                    print(f"{picture}: {'; '.join(found) or 'fits'}", flush=True)
        browser.close()
    return int(problems > 0)


if __name__ == "__main__":
    raise SystemExit(main())
