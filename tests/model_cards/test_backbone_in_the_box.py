"""The backbone that comes with the repository: it loads without this package, and its outputs are pinned."""

import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ResNetBackbone

from helpers.paths import ROOT

FOLDER = ROOT / "model_cards" / "backbones" / "imagenette96-ladder"
MEANS = {  # of the first four channels of each stage, for `picture`
    "stage1": [0.1616, 0.6645, 2.1197, 1.0186],
    "stage2": [0.0000, 0.2967, 0.0000, 2.8430],
    "stage3": [0.0497, 0.0000, 0.1879, 0.2005],
    "stage4": [0.6490, 0.5532, 0.0000, 0.6317],
}
ALONE = """
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1])
assert not {"modeling_ladder", "ladder_training", "ladder_model_cards"} & set(sys.modules)
print(sum(parameter.numel() for parameter in model.parameters()))
"""


def picture() -> Image.Image:
    """A picture of two ramps, the same on every machine."""
    ramp = np.linspace(0, 255, 128, dtype=np.float32)
    planes = [np.tile(ramp, (128, 1)), np.tile(ramp[:, None], (1, 128)), np.full((128, 128), 128)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def test_outputs_are_pinned() -> None:
    pixels = AutoImageProcessor.from_pretrained(FOLDER)(picture(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 96, 96)
    model = ResNetBackbone.from_pretrained(FOLDER).eval()
    with torch.no_grad():
        maps = dict(zip(model.out_features, model(pixels).feature_maps, strict=True))
    assert maps.keys() == MEANS.keys()
    for stage, means in MEANS.items():
        assert maps[stage].mean(dim=(2, 3))[0, :4].tolist() == pytest.approx(means, abs=2e-3)


def test_it_loads_in_a_process_without_this_package() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, str(FOLDER)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1_230_240


def test_its_folder_says_what_was_measured_and_shows_no_photograph_of_its_training() -> None:
    assert json.loads((FOLDER / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
    scores = json.loads(next((FOLDER / "evaluation").glob("knn-*.json")).read_text(encoding="utf-8"))
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    figures = [100 * scores[key]["all"]["accuracy"] for key in ("metrics", "untrained")]
    assert f"| All stages | {figures[0]:.1f} ± 1.8 % (+22.6) | {figures[1]:.1f} % |" in card
    assert "on 2,000 held-out images" in card, "each figure says how many images are behind it"
    assert {path.name for path in (FOLDER / "figures").iterdir()} == {"collapse.png", "knn.png", "loss.png", "pca.png"}
    assert "CC BY 2.0" in card and "danielbuechele" in card and "vultilion" in card
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


def test_the_list_of_published_backbones_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippet runs, its numbers are those of the evaluation's file, and it names the recipe of each folder."""
    page = (ROOT / "model_cards" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "model_cards/README.md", "exec"), names)
    assert names["model"].num_parameters() == 1_230_240
    scores = json.loads(next((FOLDER / "evaluation").glob("knn-*.json")).read_text(encoding="utf-8"))
    for stage in (*MEANS, "all"):
        row = [f"{100 * scores[key][stage]['accuracy']:.1f} %" for key in ("metrics", "untrained")]
        assert f"| {stage.replace('stage', 'stage ')} | {' | '.join(row)} |" in page
    folders = [path.name for path in (ROOT / "model_cards" / "backbones").iterdir()]
    assert all(f"(backbones/{name}/README.md)" in page and f"## {name}" in page for name in folders)
    recipe, seed, steps = re.search(
        r"ladder pretrain (\S+\.yaml) --method ladder --seed (\d+) --max_steps (\d+)", page
    ).groups()
    facts = json.loads((FOLDER / "run.json").read_text(encoding="utf-8"))
    assert (ROOT / recipe).is_file() and facts["recipe"]["text"] == (ROOT / recipe).read_text(encoding="utf-8")
    assert (facts["method"], facts["seed"], facts["steps"]) == ("ladder", int(seed), int(steps))
