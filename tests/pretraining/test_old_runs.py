"""Runs that an earlier version wrote are resumed, finished, loaded and described."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.card_texts import sections
from ladder_model_cards import write_card
from ladder_training.cli.entry import main
from ladder_training.config.recipe import read_recipe, resolve
from ladder_training.errors import LevelCollapsed
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.pretraining.run import pretrain
from ladder_training.runs.checkpoints import damage
from modeling_ladder import LadderSiameseForPreTraining

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
RECIPE = str(OLD_RUNS / "tiny.yaml")


@pytest.fixture
def old_run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(OLD_RUNS / request.param, tmp_path / request.param))


def in_todays_words(text: str) -> str:
    """An old card's text with the names of stages and the short commit of today, without the picture that moved up."""
    words = "Accuracy of a kNN vote on the features of each stage during pretraining"
    text = text.replace(f"![{words}](figures/knn.png)\n\n*{words}.*\n\n", "")
    text = text.replace("Loss of each level", "Loss of each stage").replace(
        "projections of each level", "projections at each stage"
    )
    text = re.sub(r"(?m)^\| stage(\d) \|", r"| Stage \1 |", text)
    return re.sub(r"at commit `(\w{12})\w*`", r"at commit `\1`", text)


@pytest.mark.parametrize("old_run", ["interrupted"], indirect=True)
def test_an_interrupted_run_is_resumed_to_the_weights_of_the_uninterrupted_one(
    old_run: Path, own_cache: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert damage(old_run / "checkpoint-1") is None
    assert main(["pretrain", RECIPE, "--output", str(old_run)]) == 0
    run = json.loads((old_run / "run.json").read_text(encoding="utf-8"))
    assert (run["status"], run["steps"], run["images_seen"], run["starts"]) == ("finished", 2, 32, 2)
    assert run["started"] == "2026-11-27T15:56:34+00:00"
    log = json.loads((old_run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert {entry["step"] for entry in log if "loss" in entry} == {1, 2}, "the first step was logged before"
    for name in ("model.safetensors", "pretraining/model.safetensors"):
        resumed, whole = load_file(old_run / name), load_file(OLD_RUNS / "finished" / name)
        for counter in [key for key in whole if key.endswith("num_batches_tracked")]:
            del resumed[counter], whole[counter]  # nothing reads these counters, and they are no longer counted up
        torch.testing.assert_close(resumed, whole, rtol=1e-4, atol=1e-5)
    assert "Optimizer&nbsp;steps | 2 |" in (old_run / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("old_run", ["finished"], indirect=True)
def test_a_finished_run_is_known_loaded_and_described(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", RECIPE, "--output", str(old_run)]) == 0
    assert "is finished: 2 steps" in capsys.readouterr().out
    weights = load_file(old_run / "model.safetensors")
    model = load_backbone(str(old_run))
    maps = model(torch.zeros(1, 3, 32, 32))
    assert list(maps) == ["stage1", "stage2", "stage3", "stage4"]
    whole = LadderSiameseForPreTraining.from_pretrained(old_run / "pretraining")
    online = whole.backbone.state_dict()
    assert all(torch.equal(online[name], value) for name, value in weights.items())
    before = (old_run / "README.md").read_text(encoding="utf-8")
    write_card(old_run)
    after = (old_run / "README.md").read_text(encoding="utf-8")
    # The snippets of "Use it" are those of today; all that is known of the run stays as it was.
    assert sections(after).keys() == sections(before).keys()
    for title, text in sections(before).items():
        assert title == "Use it" or sections(after)[title] == in_todays_words(text), title
    assert after.index("(figures/knn.png)") < after.index("## Use it"), "the best picture stands at the top"


def test_a_collapse_is_recorded_by_its_kind(tmp_path: Path, own_cache: None) -> None:
    folder = tmp_path / "run"
    with pytest.raises(LevelCollapsed, match=r"^stage1\.local has collapsed at step 1: ") as caught:
        pretrain(resolve(read_recipe(RECIPE), {"output": str(folder), "collapse_threshold": 2.0}))
    error = caught.value
    assert (error.level, error.step, error.limit) == ("stage1.local", 1, 2.0) and 0 < error.spread < 2
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    old = json.loads((OLD_RUNS / "collapsed" / "run.json").read_text(encoding="utf-8"))
    assert (run["status"], run["stopped_by"], run["reason"]) == ("stopped", "collapse", str(error))
    assert run["reason"] == old["reason"], "the message is the one of before"
    assert old.keys() - run.keys() == set()
