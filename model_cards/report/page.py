"""`write_report`: one self-contained HTML file for a run's or a comparison's folder."""

from html import escape
from pathlib import Path

from ..errors import CardError
from ..figures.style import css
from ..files import write_whole
from ..run_files import read_comparison, read_run_files
from .comparison_page import comparison_sections
from .run_page import run_sections

REPORT = "report.html"
STYLE = Path(__file__).parents[1] / "templates" / "report.css"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def report_html(folder: str | Path) -> str:
    """Write the report of a run or a comparison as text; see `write_report`."""
    path = Path(folder)
    comparison = read_comparison(path)
    if comparison:
        sections = list(comparison_sections(comparison))
    else:
        sections = list(run_sections(read_run_files(path, unfinished=True)))
    body = "\n".join(part for part in sections if part)
    title = body.partition("<h1>")[2].partition("</h1>")[0]
    style = css() + STYLE.read_text(encoding="utf-8")
    return PAGE.format(title=title, style=style, body=body)


class Report:
    """The report of a run or a comparison that shows itself in a notebook, also while the run goes on.

    Args:
        folder: See `write_report`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Report({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        # A frame of its own: the page's style must not change the notebook's, nor the other way round.
        page = escape(report_html(self.folder))
        return f'<iframe srcdoc="{page}" width="100%" height="600" title="{escape(repr(self))}"></iframe>'


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run, also of one that is still going, or of a comparison.

    Args:
        folder: A run's folder (run.json), a folder with a backbone, or that of a comparison (comparison.json).
        output: The HTML file. Default: report.html in the folder.

    Returns:
        The file's path.

    Raises:
        CardError: The folder holds neither a run nor a comparison, or a file of it cannot be read.
    """
    path = Path(folder)
    page = report_html(path)
    target = Path(output) if output is not None else path / REPORT
    if target.is_dir():
        raise CardError(f"{target} is a folder; give the name of an HTML file")
    write_whole(target, page.encode())
    return target
