"""Texts from data, files and people on a card: they show what they say and do nothing else."""

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.hub_server.runs import STAGES, evaluation, run_facts, save_backbone, write_json
from ladder_model_cards import build_card, write_card
from ladder_model_cards.text import code, fence, hide_paths, one_line, plain, table

FRONT = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")


@pytest.fixture
def folder(plain_run: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(plain_run, tmp_path / "run"))


NASTY = [
    "</details><script>alert(1)</script>",
    "x\n---\nlicense: mit\n---\n# Owned",
    "![x](https://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "https://evil.example www.evil.example",
    "| a | b |\n| - | - |",
    "`code` ``` ~~~",
    "{{ config }} ${HOME} $title",
    "<!-- ladder-card: your text ends here -->",
    "a: b # c & *d !!python/object/apply:os.system ['id']",
    "\u202egnp.exe\u0000\x1b[31m",
    "&lt;b&gt; &#60;",
    "\\* _em_ **bold** ~~s~~ @user #12 $$x$$",
    "'\"; drop",
    "\n\n<script>x</script>\n\n    code\n\t# H",
    "[a]: javascript:alert(1)\n[^1]: x",
    "| x |\n|-|\n| y |\n~~~\n]]> <?php <!--",
    "http&#58;//x ftp://x mailto:x@y.z <https://x>",
    "@user/team #1 GH-1 deadbeefdeadbeefdeadbeefdeadbeefdeadbeef :smile:",
]


def hostile_run(folder: Path, text: str) -> None:
    """Put a text everywhere in a run's files where data of others can end up."""
    facts = run_facts(license=text, method=text, hardware=text, git_commit=text, status=text, reason=text, command=text)
    facts["datasets"] = [{"name": text, "split": text, "revision": text, "fingerprint": text, "images": 3}]
    facts["versions"] = {text: text}
    facts["recipe"] = {"name": text, "text": f"dataset: {text}\n```\n</details>", "values": {"from_model": text}}
    write_json(folder / "run.json", facts)
    changes: dict[str, Any] = {"dataset": text, "split": text, "fit_split": text, "notes": [text], "seed": text}
    changes |= {"protocol": {text: text}, "classes": [text, "cat"], "per_class": {text: [0.5, None]}}
    changes["metrics"] = {text or "x": {text or "y": 0.5}, "stage1": {"accuracy": 0.25}}
    for path in (folder / "evaluation").glob("*.json"):
        path.unlink()
    write_json(folder / "evaluation" / "a.json", evaluation("knn", **changes))
    write_json(folder / "evaluation" / "b.json", evaluation(text or "t", **changes))
    figures = {"mean": 0.5, "std": text, "collapsed": [text], "difference": {"mean": 0.1, "low": text}}
    row = {"task": text, "dataset": text, "metric": text, "headline": text, "methods": {text: figures}}
    compared = {"methods": [text, f"{text}2"], "baseline": text, "seeds": [text, 1], "dataset": text, "rows": [row]}
    compared |= {"pretraining": {text: {text: {"steps": 4, "seconds": 5}}}, "notes": [text]}
    write_json(folder / "comparison.json", compared)


def check_card(text: str) -> None:
    """A card's metadata is a mapping of known keys, and its Markdown holds no markup but the template's."""
    block = FRONT.match(text)
    data = yaml.safe_load(block.group(2))
    known = {"datasets", "library_name", "license", "pipeline_tag", "tags", "model-index", "base_model"}
    assert set(data) <= known and data["library_name"] == "transformers"
    body = text[block.end() :]
    assert body.count("<!-- ladder-card: your text ends here -->") == 1
    outside, fences, ticks = [], 0, ""
    for line in body.splitlines():
        mark = re.match(r"`{3,}", line)
        if mark and (not ticks or line.strip() == ticks):
            ticks, fences = ("" if ticks else mark.group(0)), fences + 1
        elif not ticks:
            outside.append(line)
    assert not ticks and fences % 2 == 0
    prose = re.sub(r"`[^`\n]*`", "", "\n".join(outside))
    tags = set(re.findall(r"<[^>]*>?", re.sub(r"<!-- .*? -->", "", prose)))
    assert tags <= {"<br>", "<details>", "</details>", "<summary>", "</summary>"}
    assert prose.count("<details>") == prose.count("</details>")
    links = re.findall(r"\]\(([^)]*)\)", prose)
    assert all(link.startswith(("https://arxiv.org/abs/", "figures/")) for link in links)
    bare = re.sub(r"\(https://arxiv\.org/abs/[\d.]+\)", "", prose)
    assert not re.search(r"https?:|www\.", bare)
    titles = {line for line in outside if line.startswith("#")}
    assert not any("Owned" in line and not line.startswith(("# ", "### ")) for line in titles)
    for before, line in itertools.pairwise(outside):
        if before.startswith("| ") and line.startswith("| "):
            assert before.count("|") == line.count("|"), "a cell's bar would add a column"
    assert all(char.isprintable() for line in outside for char in line)


@pytest.mark.parametrize("text", NASTY)
def test_text_from_data_stays_text(text: str, folder: Path) -> None:
    hostile_run(folder, text)
    card = write_card(folder).read_text(encoding="utf-8")
    check_card(card)
    assert write_card(folder).read_text(encoding="utf-8") == card, "a rebuild reads its own card back"


@given(text=st.text(min_size=1, max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_stays_text(text: str, plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(plain_run, folder)
    hostile_run(folder, text)
    check_card(build_card(folder).text)


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_plain_shows_exactly_the_text(text: str) -> None:
    import html

    shown = one_line(text)
    assert html.unescape(plain(text)) == shown
    rest = re.sub(r"&#\d+;", "", plain(text))
    assert not re.search(r"[`*\[\]<>|~\\$!#&(){}@]|https?:|www\.", rest)
    assert "\n" not in table(["a", "b"], [[plain(text), code(text)]]).splitlines()[-1]
    block = fence(text)
    ticks = re.match(r"`+", block).group(0)
    assert len(ticks) >= 3 and not any(line.strip() == ticks for line in block.splitlines()[1:-1])


def test_secrets_and_paths_stay_at_home(folder: Path) -> None:
    token = "hf_abcdefghijklmnopqrstuvwxyz0123456789"
    command = f"ladder pretrain /home/jane/secret/recipe.yaml --hub_token {token}"
    recipe = {"text": f"dataset: /home/jane/data/cats\nhub_token: {token}\n", "values": {"hub_token": token}}
    write_json(
        folder / "run.json", run_facts(command=command, recipe=recipe, datasets=[{"name": "/home/jane/data/cats"}])
    )
    text = write_card(folder).read_text(encoding="utf-8")
    assert token not in text and "jane" not in text and "/home" not in text
    assert ".../recipe.yaml" in text and ".../cats" in text
    assert "datasets" not in yaml.safe_load(FRONT.match(text).group(2)), "a local folder is no data set of the Hub"
    assert hide_paths("a/b and user/name and /x/y/z.png, C:\\u\\v\\w") == "a/b and user/name and .../z.png, .../w"


def test_stage_names_are_text_too(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    names = ["stem", "<b>", *STAGES[1:]]
    write_json(folder / "config.json", config | {"stage_names": names, "architectures": ["x; import os"]})
    check_card(write_card(folder).read_text(encoding="utf-8"))
    save_backbone(folder)
