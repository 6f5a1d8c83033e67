"""Pieces of `ladder compare` on their own: its help, its processes, and the reading of its cells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder_training.compare import schedule, work
from ladder_training.errors import UserError


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from ladder_training.cli.entry import main; code = main(['compare', '--help']); "
        "print([n for n in ('torch', 'transformers', 'datasets', 'matplotlib', 'scipy') if n in sys.modules]);"
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1] == "[]"
    for option in ("--methods", "--seeds", "--evaluations", "--variants", "--jobs", "--redo", "--max_steps"):
        assert option in result.stdout or option == "--max_steps"


def test_a_process_takes_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, units = SimpleNamespace(threads=None), [work.WorkItem("byol", 0), work.WorkItem("byol", 1)]
    seen: dict[str, Any] = {}

    def run(plan: Any, units: Any, jobs: int, after: Any) -> None:
        import os

        seen.update(threads=plan.threads, variable=os.environ["OMP_NUM_THREADS"], jobs=jobs)

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(schedule, "_run_in_processes", run)
    monkeypatch.setattr(schedule, "cores", lambda: 9)
    schedule.run_all(plan, units, 2, lambda: None)
    assert seen == {"threads": 4, "variable": "4", "jobs": 2}
    import os

    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_the_error_of_a_mismatch_is_the_users(tmp_path: Path) -> None:
    from ladder_training.compare.cells import Cells

    cells = Cells(tmp_path)
    cells.write("byol", 0, "x", {"a": (1, 2), "b": 0.1}, {"status": "finished"})
    assert cells.read("byol", 0, "x", {"a": [1, 2], "b": 0.1})["status"] == "finished"
    # A field that is younger than the cell is no difference at its default, and one at another value.
    assert cells.read("byol", 0, "x", {"a": [1, 2], "b": 0.1, "new": 3}, {"new": 3})
    with pytest.raises(UserError, match="new not set, now it is 4"):
        cells.read("byol", 0, "x", {"a": [1, 2], "b": 0.1, "new": 4}, {"new": 3})
    with pytest.raises(UserError, match=r"b 0\.1, now it is not set"):
        cells.read("byol", 0, "x", {"a": [1, 2]})
    assert Cells(tmp_path, redo=True).read("byol", 0, "x", {"a": [1, 2]}) is None
    assert cells.read("byol", 1, "x", {}) is None
    cells.path("byol", 0, "x").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as a cell"):
        cells.read("byol", 0, "x", {})
