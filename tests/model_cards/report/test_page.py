"""`ladder report`: what the page says of a finished run, of one that is going, and of a comparison."""

import html
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.card_texts import sections
from helpers.hub_server.runs import evaluation, log_history, make_run, run_facts, write_json
from helpers.paths import ROOT
from ladder_model_cards import CardError, Report, build_card, write_report
from ladder_training.cli.entry import main

VOID = {"meta", "img", "line", "polyline", "br"}


class Checked(HTMLParser):
    """Fails on a tag that is not closed, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> str:
    """The page's text, after checking that it is well formed and asks for nothing from outside."""
    page = Checked()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert all(source.startswith("data:") for source in page.sources)
    return re.sub(r"\s+", " ", " ".join(page.words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_finished_run(run: Path) -> None:
    (run / "figures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (200, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "figures" / "pca.png")
    page = write_report(run)
    assert page == run / "report.html"
    assert page.stat().st_size < 5_000_000
    shown = read(page)
    for told in (
        "finished, step 40",
        "kNN accuracy on held-out images",
        "Main directions",
        "k nearest neighbours on digits",
    ):
        assert told in shown
    assert "360 images scored , 1,437 fitted on" in shown.replace("scored,", "scored ,")
    assert "Versions" in shown
    assert "/home/someone" not in shown


def test_several_seeds_and_the_untrained_network_stand_in_one_table(run: Path) -> None:
    for seed in range(3):
        untrained = {"stage1": {"accuracy": 0.25 + 0.05 * seed}}
        content = evaluation(seed=seed, shift=0.01 * seed) | {"untrained": untrained}
        write_json(run / "evaluation" / f"knn-digits-{seed}.json", content)
    (run / "evaluation" / "knn-digits.json").unlink()
    shown = read(write_report(run))
    # The gain is over the untrained networks of all seeds.
    assert "Stage 1 16 × 16 positions, 8 channels 51.0 ± 1.0 30.0 ± 5.0 +21.0" in shown
    assert "seeds 0, 1, 2" in shown


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "high"])
def test_an_evaluation_without_a_finite_number_is_said(run: Path, value: object) -> None:
    metrics = {stage: {"accuracy": value} for stage in ("stage1", "stage2", "all")}
    write_json(run / "evaluation" / "knn-digits.json", evaluation(metrics=metrics))
    shown = read(write_report(run))
    assert "k nearest neighbours on digits" in shown and "No metric is a finite number." in shown
    results = sections(build_card(run).text)["Results"]
    assert "### k nearest neighbours on digits" in results and "No metric is a finite number." in results


def test_a_run_that_is_going_shows_how_far_it_is(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", run_facts(status="running", finished=None, steps=16, seconds=20.0))
    look = {"step": 0, "knn/stage1": 0.2}
    write_json(tmp_path / "checkpoint-16" / "trainer_state.json", {"log_history": [look, *log_history(16)]})
    shown = read(write_report(tmp_path))
    assert "running, step 16 of 40" in shown
    assert "Time left, about 30 s" in shown
    assert "Stage 1 20.0 46.0 +26.0" in shown


def test_every_part_of_a_finished_run_is_there(run: Path) -> None:
    """The list of what the page owes: plan, losses, kNN, spread and rank, pictures, evaluations, versions, command."""
    untrained = {stage: {"accuracy": 0.25} for stage in ("stage1", "stage2", "stage3", "stage4", "all")}
    content = evaluation() | {"untrained": untrained}
    write_json(run / "evaluation" / "knn-digits.json", content)
    write_json(run / "run.json", run_facts(monitoring_images=369))
    (run / "figures").mkdir()
    for name in ("pca.png", "neighbours-stage4.png"):
        Image.new("RGB", (40, 40)).save(run / "figures" / name)
    page = write_report(run)
    source, shown = page.read_text(encoding="utf-8"), read(page)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", source)
    for told in ("kNN accuracy", "Loss of each level", "Spread", "Effective rank", "Main directions", "Most similar"):
        assert any(caption.startswith(told) for caption in captions), told
    assert source.count('<polyline class="line') >= 2 * (5 + 4 + 4 + 4), "a line for each stage and level, and its key"
    headings = re.findall(r"<h2>(.*?)</h2>", source)
    assert headings == [
        "How training went",
        "What was measured",
        "What the stages see",
        "The plan",
        "Where it comes from",
    ]
    assert re.search(r"Stage 4 2 × 2 positions, 32 channels \d+\.\d 25\.0 \+\d+\.\d", shown)
    assert "Every look is at 369 held-out images" in shown
    assert "max_steps 40" in shown and "ladder pretrain" in shown and "torch 2.14.1" in shown
    assert len(re.findall(r'<img alt="[^"]+" src="data:image/png;base64,', source)) == 2
    for words in ("prefers-color-scheme:dark", "@media print", "max-width: 30rem", 'name="viewport"'):
        assert words in source, "dark, paper, phone"


def test_a_page_in_a_notebook(run: Path) -> None:
    shown = Report(run)._repr_html_()
    frame = re.fullmatch(r'<iframe srcdoc="(.*)" width="100%" height="600" title="[^"]+"></iframe>', shown, re.DOTALL)
    assert html.unescape(frame[1]) == write_report(run).read_text(encoding="utf-8")


def test_a_comparison() -> None:
    data = json.loads((ROOT / "docs" / "study" / "imagenette96" / "comparison.json").read_text(encoding="utf-8"))
    headline = next(row for row in data["rows"] if row["task"] == "linear" and row["headline"])
    difference = headline["methods"]["ladder"]["difference"]
    expected = f"{100 * difference['mean']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    from ladder_model_cards.report.comparison_page import comparison_sections

    page = "".join(comparison_sections(data))
    assert expected in page
    assert page.count("<svg") >= 5


def test_the_command_and_its_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").is_file()
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    shutil.rmtree(run)
    run.mkdir()
    assert main(["report", str(run)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_text_from_files_does_nothing_on_the_page(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x>"
    facts = run_facts(status="stopped", reason=bad, title=bad, hardware=bad, datasets=[{"name": bad}])
    facts["recipe"]["values"][bad] = bad
    write_json(tmp_path / "run.json", facts)
    page = write_report(tmp_path)
    assert "<script" not in page.read_text(encoding="utf-8")
    read(page)


def test_a_folder_is_not_written_over(run: Path) -> None:
    with pytest.raises(CardError, match="is a folder"):
        write_report(run, run)
