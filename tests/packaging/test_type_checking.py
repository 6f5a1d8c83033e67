"""The type checker is part of `make lint`, and nothing is hidden from it wholesale."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {"modeling_ladder": "modeling_ladder", "ladder_training": "training", "ladder_model_cards": "model_cards"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
STRICT = {"modeling_ladder.*", "ladder_training.config.*", "ladder_training.data.*", "ladder_training.loading.*"}


def test_lint_runs_the_type_checker_on_all_packages() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"(?m)^lint:.*\btypes\b", makefile)
    assert set(SETTINGS["packages"]) == set(FOLDERS)


def test_no_errors_are_ignored_wholesale() -> None:
    rows = [SETTINGS, *SETTINGS["overrides"]]
    assert not any(row.get(name) for row in rows for name in ("ignore_errors", "exclude", "disable_error_code"))
    own = [name for row in SETTINGS["overrides"] if "follow_imports" in row for name in row["module"]]
    assert not [name for name in own if name.split(".")[0] in FOLDERS]
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"#\s*(type: ignore(?!\[)|mypy:)", text), path


def test_the_strict_rooms_are_strict() -> None:
    strict = [row for row in SETTINGS["overrides"] if row.get("disallow_untyped_defs")]
    assert len(strict) == 1
    assert set(strict[0]["module"]) >= STRICT
    for name in ("disallow_any_generics", "disallow_untyped_calls", "warn_return_any", "strict_equality"):
        assert strict[0][name] is True
