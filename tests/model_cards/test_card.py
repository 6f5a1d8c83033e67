"""Model cards: true metadata, figures that are there, snippets that run, text of people that survives."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.card_texts import metadata, sections
from helpers.hub_server.runs import LEVELS, STAGES, evaluation, log_history, make_run, run_facts, write_json
from ladder_model_cards import CardError, build_card, feature_figures, write_card
from ladder_model_cards.card import BEGIN, END
from ladder_model_cards.figures.training_figures import curves, training_figures


def test_metadata_says_what_is_known_and_measured(full_run: Path) -> None:
    from huggingface_hub import ModelCard

    text = write_card(full_run).read_text()
    data = metadata(text)
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "image-feature-extraction"
    assert data["license"] == "apache-2.0"
    assert "datasets" not in data, "the embedded digits are no data set of the Hub"
    assert {"arxiv:2211.13844", "ladder-siamese", "self-supervised-learning", "resnet"} <= set(data["tags"])
    assert "base_model" not in data
    index = data["model-index"][0]
    assert index["name"] == "Ladder Siamese small ResNet, pretrained on digits"
    measured = evaluation()["metrics"]
    found = {
        (result["task"]["type"], result["dataset"]["type"], result["dataset"]["split"], metric["name"], metric["value"])
        for result in index["results"]
        for metric in result["metrics"]
    }
    names = {stage: f"k nearest neighbours, {stage}, accuracy" for stage in measured}
    assert found == {
        ("image-classification", "digits", "test", names[stage], round(row["accuracy"], 6))
        for stage, row in measured.items()
    }
    parsed = ModelCard(text).data
    assert parsed.eval_results and parsed.model_name == index["name"]


def test_base_model_only_from_the_hub(run: Path) -> None:
    values = {"from_model": "microsoft/resnet-50"}
    write_json(run / "run.json", run_facts(recipe={"text": "", "values": values}))
    assert metadata(build_card(run).text)["base_model"] == "microsoft/resnet-50"
    write_json(run / "run.json", run_facts(recipe={"text": "", "values": {"from_model": "/data/old/run"}}))
    assert "base_model" not in metadata(build_card(run).text)


def test_datasets_are_those_of_the_hub(run: Path) -> None:
    datasets = [
        {"name": "user/pets:small", "hub": "user/pets", "revision": "ab" * 20, "split": "train", "images": 5},
        {"name": "photos", "hub": None, "split": "train"},
        {"name": "pets2", "hub": "user/pets", "split": "train"},
        {"name": "evil", "hub": "user/x\n---\nlicense: mit"},
    ]
    write_json(run / "run.json", run_facts(datasets=datasets))
    text = build_card(run).text
    assert metadata(text)["datasets"] == ["user/pets"] and metadata(text)["license"] == "apache-2.0"
    assert f"revision `{'ab' * 20}`, 5 images" in text


def test_every_local_link_exists_and_every_figure_is_shown(full_run: Path) -> None:
    from PIL import Image

    (full_run / "figures").mkdir()
    Image.new("RGB", (8, 8)).save(full_run / "figures" / "pca.png")
    text = write_card(full_run).read_text()
    links = re.findall(r"\]\((?!https://)([^)]+)\)", text)
    assert {Path(link).name for link in links} == {"loss.png", "knn.png", "collapse.png", "pca.png"}
    for link in links:
        with Image.open(full_run / link) as picture:
            picture.verify()
    assert sorted(path.name for path in (full_run / "figures").iterdir()) == sorted(Path(link).name for link in links)


def test_every_snippet_runs_offline(full_run: Path) -> None:
    """All python blocks of the card, in order, each with a namespace of its own, with sockets cut off."""
    text = write_card(full_run).read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) == 6
    program = (
        "import json, socket, sys\ndef refuse(*a, **k): raise OSError('network')\nsocket.socket.connect = refuse\n"
    )
    program += (
        "for code in json.load(sys.stdin):\n    exec(compile(code, 'snippet', 'exec'), {'__name__': 'snippet'})\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(snippets),
        cwd=full_run,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "torch.Size([1, 32])" in done.stdout and "(1, 8, 16, 16), (1, 16, 8, 8)" in done.stdout
    assert "'stage4': (1, 32, 2, 2)" in done.stdout


def test_nothing_is_left_blank_and_no_section_without_data(run: Path, full_run: Path) -> None:
    bare = sections(build_card(full_run).text)
    assert list(bare) == [
        "Results",
        "Use it",
        "How it was trained",
        "What is the paper's and what is not",
        "Intended use and limits",
        "Cite",
    ]
    for name in ("run.json", "evaluation", "preprocessor_config.json"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = build_card(run).text
    assert list(sections(text)) == ["Use it", "Intended use and limits"], "nothing is claimed of an unknown training"
    assert "Ladder" not in re.sub(r"LadderSiameseModel|ladder.siamese. package|ladder.card", "", text)
    assert "How it was trained is not recorded" in text and "arxiv" not in str(metadata(text)["tags"])
    for found in (text, build_card(full_run).text):
        assert not re.search(r"More Information Needed|\bNone\b|\bnan\b|\$\w|TODO|unknown", found)
    assert "model-index" not in metadata(text) and metadata(text)["license"] == "other"
    assert "datasets" not in metadata(text)


def test_training_facts_are_the_runs(full_run: Path) -> None:
    text = sections(build_card(full_run).text)["How it was trained"]
    for fact in (
        "`digits`",
        "1,437 images",
        "2,560",
        "| Optimizer&nbsp;steps | 40 |",
        "1 min 13 s",
        "a test, 2 cores, no GPU",
    ):
        assert fact in text
    for fact in (
        "commit `0123456789ab`",
        "torch 2.14.1",
        "| Seed | 0 |",
        "2026-11-23",
        "max_steps: 40",
        "| Stage 1 | local | 0.25 |",
    ):
        assert fact in text
    write_json(full_run / "run.json", run_facts(status="stopped", reason="stage3.global has collapsed"))
    text = build_card(full_run).text
    assert "**The run did not finish:** its status is stopped (stage3.global has collapsed)." in text


@given(
    words=st.text(
        alphabet=st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=200
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hand_written_section_survives_byte_by_byte(words: str, plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(plain_run, folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = write_card(folder)
    before = path.read_bytes()
    marked = before.replace(f"{BEGIN}\n\n{END}".encode(), f"{BEGIN}\n{words}\n{END}".encode())
    assert marked != before or words == ""
    path.write_bytes(marked)
    for _ in range(2):
        write_card(folder)
        assert path.read_bytes() == marked


def test_a_readme_of_somebody_else_is_kept_and_damaged_marks_stop(run: Path) -> None:
    (run / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nHello.\n")
    path = write_card(run)
    assert f"{BEGIN}\n# Mine\n\nHello.\n{END}" in path.read_text()
    assert metadata(path.read_text())["license"] == "apache-2.0"
    for damage in (
        lambda t: t.replace(END, ""),
        lambda t: t.replace(BEGIN, ""),
        lambda t: t.replace(END, f"{END}\n{END}"),
        lambda t: t.replace(END, "").replace(BEGIN, ""),  # what stood between them was dropped without a word
    ):
        good = path.read_text()
        path.write_text(damage(good))
        with pytest.raises(CardError, match="restore them"):
            write_card(run)
        assert path.read_text() == damage(good)
        path.write_text(good)


def test_files_that_a_card_cannot_be_made_from_are_named(run: Path) -> None:
    (run / "README.md").write_bytes(b"# M\xfcller")
    with pytest.raises(CardError, match=r"README\.md is not UTF-8 \(byte 3\); save it as UTF-8, or remove it$"):
        write_card(run)
    assert (run / "README.md").read_bytes() == b"# M\xfcller"
    (run / "README.md").unlink()
    for content in (None, [], "knn", {}, {"task": "knn"}, {"task": "knn", "metrics": None}, {"metrics": {"a": 1.0}}):
        write_json(run / "evaluation" / "linear-digits.json", content)
        with pytest.raises(CardError, match=r"linear-digits\.json holds no evaluation \(a task and its metrics\); rem"):
            write_card(run)


def test_the_name_of_a_push_is_remembered(run: Path) -> None:
    write_card(run, repo_id="user/digits")
    text = write_card(run).read_text()
    assert 'from_pretrained("user/digits")' in text and 'from_pretrained(".")' not in text


def test_limits_name_the_views_that_were_made(run: Path) -> None:
    assert "(crops, mirroring, colour changes, grey, blur)" in build_card(run).text
    values = {"flip": 0.0, "blur": [0.0, 0.0], "jitter": 0.8, "grayscale": "x"}
    write_json(run / "run.json", run_facts(recipe={"text": "", "values": values}))
    assert "(crops, colour changes)" in build_card(run).text


def test_a_rebuild_gives_the_same_bytes_and_drops_old_figures(full_run: Path) -> None:
    import matplotlib

    def settings_of_the_caller() -> dict[str, Any]:
        # Reading "backend" itself would choose one.
        found = {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
        return found | {"backend": matplotlib.rcParams._get_backend_or_none()}

    before = settings_of_the_caller()
    write_card(full_run)
    assert settings_of_the_caller() == before
    first = {path: path.read_bytes() for path in full_run.rglob("*") if path.is_file()}
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        write_card(full_run)
    assert first == {path: path.read_bytes() for path in full_run.rglob("*") if path.is_file()}
    (full_run / "trainer_state.json").unlink()
    text = write_card(full_run).read_text()
    assert "figures/" not in text and not list((full_run / "figures").iterdir())


def test_a_running_run_has_a_card_from_its_last_checkpoint(full_run: Path) -> None:
    (full_run / "trainer_state.json").unlink()
    for step in (8, 40):
        state = {"log_history": log_history(step)}
        write_json(full_run / f"checkpoint-{step}" / "trainer_state.json", state)
    assert build_card(full_run).figures["loss.png"] == training_figures(log_history(40))["loss.png"]


def test_broken_files_are_named(run: Path) -> None:
    for name in ("run.json", "config.json", "comparison.json", "trainer_state.json"):
        kept = (run / name).read_bytes() if (run / name).exists() else None
        (run / name).write_text("[1, 2")
        with pytest.raises(CardError, match=name.replace(".", r"\.")):
            write_card(run)
        (run / name).write_bytes(kept) if kept else (run / name).unlink()
    with pytest.raises(CardError, match="is no folder"):
        write_card(run / "config.json")
    with pytest.raises(CardError, match=r"no config\.json"):
        write_card(run / "evaluation")


def test_curves_hold_the_log() -> None:
    log = [*log_history(16), {"step": 20, "loss": float("nan"), "knn/stage1": None, "loss/stage1.local": float("inf")}]
    found = curves(log, "loss")
    assert list(found) == LEVELS
    assert found["stage2.local"] == [(step, pytest.approx(2 - 0.02 * step - 0.1)) for step in (4, 8, 12, 16)]
    assert list(curves(log, "knn")) == [*STAGES, "all"]
    assert training_figures([]) == {} and training_figures([{"epoch": 1}]) == {}
    order = curves([{"step": 1, **{f"knn/stage{n}": 0.1 for n in (10, 2, 1)}}], "knn")
    assert list(order) == ["stage1", "stage2", "stage10"]


def test_principal_colours_are_pca() -> None:
    import numpy as np
    import torch
    from sklearn.decomposition import PCA

    from ladder_model_cards.figures.feature_figures import principal_colours

    maps = torch.randn(3, 7, 5, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8).reshape(1, 7, 1, 1)
    points = maps.permute(0, 2, 3, 1).reshape(-1, 7).numpy()
    scores = PCA(3, svd_solver="full").fit_transform(points.astype(np.float64))
    colours = principal_colours(maps).reshape(-1, 3)
    for component in range(3):
        inside = (colours[:, component] > 0) & (colours[:, component] < 1)
        relation = np.corrcoef(scores[inside, component], colours[inside, component])[0, 1]
        assert abs(relation) > 0.999999
    assert principal_colours(torch.randn(2, 2, 3, 3)).shape == (2, 3, 3, 3), "two channels only"


def test_neighbours_are_the_nearest(full_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from ladder_model_cards import feature_figures as function
    from modeling_ladder import load_native_backbone

    module = sys.modules["ladder_model_cards.figures.feature_figures"]
    drawn: dict[str, tuple[list[int], list[list[int]], list[list[float]]]] = {}
    draw = module._neighbours

    def spy(pictures: Any, queries: Any, best: Any, similarity: Any, stage: str) -> bytes:
        drawn[stage] = (queries, best, similarity)
        return draw(pictures, queries, best, similarity, stage)

    monkeypatch.setattr(module, "_neighbours", spy)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(40)]
    images[7] = Image.fromarray(images[7]).convert("L")
    written = function(full_run, images, tmp_path / "out", queries=3, neighbours=4, view_size=64)
    assert [path.name for path in written] == [*(f"neighbours-{stage}.png" for stage in STAGES), "pca.png"]
    model = load_native_backbone(full_run)
    inputs = module._prepare(full_run, [module._square(image) for image in images], 64)
    with torch.no_grad():
        maps = model(pixel_values=inputs).feature_maps
    for stage, values in zip(STAGES, maps, strict=True):
        pooled = values.mean(dim=(2, 3)).double()
        queries, best, similarity = drawn[stage]
        assert queries == [0, 20, 39] or queries == [0, 19, 39]
        for query, found, told in zip(queries, best, similarity, strict=True):
            cosine = torch.nn.functional.cosine_similarity(pooled[query][None], pooled)
            cosine[query] = -2
            assert told == pytest.approx(cosine.sort(descending=True).values[:4].tolist(), abs=1e-5)
            assert query not in found and cosine[found].tolist() == pytest.approx(told, abs=1e-5)
    labels = [3] * 20 + [1] * 10 + [5] * 10
    function(full_run, images, tmp_path / "out", labels=labels, queries=3, neighbours=4, view_size=64)
    assert drawn["stage1"][0] == [0, 20, 30], "one image of each class"
    function(full_run, images, tmp_path / "out", labels=[1] * 40, queries=3, neighbours=4, view_size=64)
    assert len(drawn["stage1"][0]) == 3, "too few classes: spread over all"
    with pytest.raises(CardError, match="at least two images"):
        feature_figures(full_run, images[:1], tmp_path)


def test_figures_of_stages_reach_the_card(tmp_path: Path) -> None:
    import numpy as np

    folder = make_run(tmp_path / "run", log=False, pretraining=False)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    written = feature_figures(folder, list(images), folder / "figures", queries=2, neighbours=2)
    text = write_card(folder).read_text()
    assert all(f"(figures/{path.name})" in text for path in written) and len(written) == 5
    assert all(path.exists() for path in written), "a rebuild keeps them"
