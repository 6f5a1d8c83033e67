"""Embeddings: the same numbers as transformers, ids and labels in place, parts that are not computed twice."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from helpers.full_disk import full_disk
from helpers.models import tiny_native_backbone
from helpers.pictures import natural_image
from helpers.processes import run_together
from ladder_training import load_image_stream
from ladder_training.cli.entry import main
from ladder_training.errors import TooManyBadImages, UserError
from ladder_training.evaluation.embedding import task
from ladder_training.evaluation.embedding.options import EmbedOptions
from ladder_training.evaluation.embedding.parts import PLAN
from ladder_training.evaluation.embedding.task import embed
from ladder_training.models.processor import image_processor


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_native_backbone().save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of two classes, 7 and 4 images; one more in train cannot be read."""
    for split, count in (("train", 7), ("test", 4)):
        for index in range(count):
            path = tmp_path / "photos" / split / ("cat" if index % 2 else "ant") / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(natural_image(80, 96, seed=index)).save(path)
    (tmp_path / "photos/train/ant/broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def options(model: Path, photos: Path | str, output: Path, **settings) -> EmbedOptions:
    given = {"batch_size": 2, "part_images": 3, "num_workers": 2, "device": "cpu", "max_bad_fraction": 0.1, **settings}
    return EmbedOptions(model=str(model), dataset=str(photos), output=str(output), **given)


def by_transformers(model: Path, paths: list[Path]) -> np.ndarray:
    """Pooled last stage, computed by transformers' own classes."""
    processor = image_processor(32)
    network = AutoModel.from_pretrained(model).eval()
    pixels = processor([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return network(pixels).last_hidden_state.mean(dim=(2, 3)).numpy()


@pytest.mark.parametrize("streaming", [False, True])
def test_ids_labels_and_features_stay_together(model, photos, tmp_path, streaming, capsys):
    output = tmp_path / "out" / "photos.parquet"
    words = ["embed", "--model", model, "--dataset", photos, "--output", output, "--batch_size", 2, "--device", "cpu"]
    words += ["--max_bad_fraction", 0.1]
    assert main([*map(str, words), *(["--streaming"] if streaming else ["--part_images", "3"])]) == 0
    table = pq.read_table(output).to_pylist()
    assert len(table) == 11 and [path.name for path in output.parent.iterdir()] == ["photos.parquet"]
    assert list(table[0]) == ["id", "split", "label", "label_name", "stage1", "stage2", "stage3", "stage4"]
    files = sorted(path.relative_to(photos) for path in photos.rglob("[0-9].png"))
    assert sorted((row["split"], row["id"]) for row in table) == sorted((path.parts[0], str(path)) for path in files)
    for row in table:
        assert row["label_name"] == row["id"].split("/")[1] and row["label"] == ["ant", "cat"].index(row["label_name"])
    expected = by_transformers(model, [photos / row["id"] for row in table])
    found = np.array([row["stage4"] for row in table])
    # our decoder shrinks as OpenCV does, transformers as PIL does: nearly the same pixels
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    said = capsys.readouterr().out
    assert (
        "11 images of train, test" in said and "1 images could not be read" in said and "train/ant/broken.png" in said
    )


def test_features_are_those_of_the_evaluation(model, tmp_path):
    from ladder_training.evaluation.backbone import load_backbone, load_image_settings
    from ladder_training.evaluation.features import extract_features
    from ladder_training.evaluation.image_transforms import CenterTransform
    from ladder_training.models.all_stages import with_all_stages

    digits = load_image_stream("digits", "test").select(range(20))
    reference = extract_features(
        load_backbone(str(model)),
        digits,
        CenterTransform(load_image_settings(str(model))),
        image_column="image",
        label_column="label",
        split="test",
    )
    wanted = with_all_stages(reference.features, normalise=True)
    given = options(model, "digits", tmp_path / "d.parquet", stages=("stage2", "all"), normalize=True, part_images=7)
    found = embed(given, dataset={"test": digits})
    assert found.count == found.computed == 20 and found.widths == {"stage2": 12, "all": 56}
    table = pq.read_table(given.output)
    assert table.column_names == ["id", "split", "label", "label_name", "stage2", "all"]
    assert table["label"].to_pylist() == reference.labels
    for name in found.widths:
        expected = torch.nn.functional.normalize(wanted[name], dim=1).numpy()
        np.testing.assert_allclose(np.array(table[name].to_pylist()), expected, atol=1e-5)


def test_npy_holds_one_matrix_and_its_rows_lie_beside_it(model, photos, tmp_path):
    embed(options(model, photos, tmp_path / "a.npy", split=("test",)))
    embed(options(model, photos, tmp_path / "a.parquet", split=("test",)))
    matrix, table = np.load(tmp_path / "a.npy"), pq.read_table(tmp_path / "a.parquet")
    assert matrix.shape == (4, 20) and matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array(table["stage4"].to_pylist(), np.float32))
    rows = pq.read_table(tmp_path / "a.rows.parquet")
    assert rows.column_names == ["id", "split", "label", "label_name"] and rows["id"] == table["id"]
    with pytest.raises(UserError, match="one matrix"):
        options(model, photos, tmp_path / "b.npy", stages=("stage1", "stage2"))


def test_whole_parts_are_not_computed_again(model, photos, tmp_path, monkeypatch):
    output = tmp_path / "e.parquet"
    written = []

    def stopped(destination, key, columns, bad):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(key)
        return write(destination, key, columns, bad)

    write = task.write_part
    monkeypatch.setattr(task, "write_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        embed(options(model, photos, output))
    assert not output.exists() and len(list((tmp_path / "e.parquet.parts").glob("part-*"))) == 2
    with pytest.raises(UserError, match="parts of other embeddings \\(image_size\\)"):
        embed(options(model, photos, output, image_size=64))
    monkeypatch.setattr(task, "write_part", write)
    found = embed(options(model, photos, output))
    assert (found.count, found.computed) == (
        11,
        6,
    )
    once = tmp_path / "once.parquet"
    embed(options(model, photos, once, part_images=100))
    first, second = pq.read_table(output), pq.read_table(once)
    assert first["id"] == second["id"]
    np.testing.assert_allclose(*(np.array(table["stage1"].to_pylist()) for table in (first, second)), atol=1e-5)
    assert embed(options(model, photos, output)) is None  # whole: nothing to do
    with pytest.raises(UserError, match="holds something else"):
        embed(options(model, photos, output, split=("test",)))
    plan = json.loads(pq.read_schema(output).metadata[PLAN.encode()])
    assert plan["images"] == 11 and plan["unreadable"][0][0] == "train/ant/broken.png"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": ("stage9",)}, "no stage stage9; there are stage1, stage2, stage3, stage4, all"),
        ({"split": ("dev",)}, "no split 'dev'"),
        ({"label_column": "colour"}, "label_column 'colour' does not exist"),
    ],
)
def test_mistakes_are_said_and_leave_nothing(model, photos, tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        embed(options(model, photos, tmp_path / "x" / "e.parquet", **settings))
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match=r"must end in .parquet or .npy"):
        options(model, photos, tmp_path / "e.csv")


def test_a_full_disk_names_the_file_and_the_same_command_goes_on(model, photos, tmp_path, capsys):
    """It left the folder of the parts without its plan, which the same command then took for that of others."""
    output = tmp_path / "e.parquet"
    words = ["embed", "--model", str(model), "--dataset", str(photos), "--output", str(output)]
    words += ["--max_bad_fraction", "0.1", "--device", "cpu"]

    with full_disk():
        assert main(words) == 2
    said = f"{output}.parts/plan.json: No space left on device; free space (or inodes: many small files) there"
    assert capsys.readouterr().err.splitlines()[-1] == f"ladder: error: {said}"
    assert list((tmp_path / "e.parquet.parts").iterdir()) == []
    (tmp_path / "e.parquet.parts/.partial-plan.json.killed").write_text("{")
    assert main(words) == 0
    assert pq.read_metadata(output).num_rows == 11


def test_without_a_readable_image_nothing_is_written(model, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_bytes(b"no")
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        embed(options(model, tmp_path / "bad", tmp_path / "e.parquet", max_bad_fraction=1.0))
    assert not list(tmp_path.glob("e.parquet*"))


@pytest.mark.parametrize("streaming", [False, True])
def test_too_many_unreadable_images_stop_it_and_a_larger_share_goes_on(model, photos, tmp_path, streaming, capsys):
    output = tmp_path / "e.parquet"
    words = ["embed", "--model", model, "--dataset", photos, "--output", output, "--part_images", 3, "--device", "cpu"]
    words = [*map(str, words), *(["--streaming"] if streaming else [])]
    assert main(words) == 3  # 1 of 12, and by default one in a hundred is allowed, as in pretrain
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("ladder: stopped: 1 of the ") and "train/ant/broken.png" in line
    assert "more than the 0.01 that max_bad_fraction allows" in line and "--max_bad_fraction" in line
    assert "written to" not in captured.out and not output.exists()
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "e.parquet.parts").glob("part-*")}
    assert parts
    assert main(words) == 3  # the same command does not creep past the limit, part by part
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "e.parquet.parts").glob("part-*")} == parts
    assert main([*words, "--max_bad_fraction", "0.09"]) == 0  # 1 / 12 = 0.083
    said = capsys.readouterr().out
    assert "of them were there from an earlier call" in said and "11 images of" in said
    assert pq.read_table(output).num_rows == 11 and not (tmp_path / "e.parquet.parts").exists()


@pytest.mark.slow
def test_two_processes_write_the_same_file(model, photos, tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    embed(options(model, photos, one))
    words = [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "ladder_training", "embed"),
        *("--model", model, "--dataset", photos, "--output", two, "--part_images", "3", "--batch_size", "2"),
        *("--device", "cpu", "--max_bad_fraction", "0.1"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written to") == 1 and "11 images" in done.stdout
    first, second = pq.read_table(one), pq.read_table(two)
    assert first["id"] == second["id"]
    np.testing.assert_allclose(np.array(first["stage4"].to_pylist()), np.array(second["stage4"].to_pylist()), atol=1e-5)


def uneven(folder: Path, count: int = 24, bad: tuple[int, ...] = (3, 4)) -> Path:
    """Photographs, of which a few in the second part of three images cannot be read: the second process has all."""
    for index in range(count):
        path = folder / f"{index:02d}.png"
        folder.mkdir(exist_ok=True)
        path.write_bytes(b"no image") if index in bad else Image.fromarray(natural_image(40, 40, index)).save(path)
    return folder


@pytest.mark.slow
def test_two_processes_stop_together_at_too_many_unreadable_images_and_go_on(model, tmp_path):
    """Whichever of them meets the unreadable images: one line, no process is left, and a larger share goes on."""
    output = tmp_path / "e.parquet"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--log-dir", str(tmp_path / "log")]
    launch += ["--tee", "3", "-m", "ladder_training", "embed", "--model", model, "--output", output, "--device", "cpu"]
    launch += ["--dataset", uneven(tmp_path / "photos"), "--part_images", "3", "--batch_size", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(*more: str) -> subprocess.CompletedProcess:
        words = [sys.executable, *map(str, launch), *more]
        return subprocess.run(words, capture_output=True, text=True, timeout=200, env=environment, check=False)

    for _ in range(2):  # the same command stops again
        stopped = run()
        said = [line for line in (stopped.stderr + stopped.stdout).splitlines() if "ladder: stopped: " in line]
        assert len(said) == 1 and "2 of the " in said[0] and "--max_bad_fraction" in said[0], stopped.stderr
        # The launcher may end the second process before its own exit code is known.
        codes = set(re.findall(r"exitcode  : (\S+)", stopped.stderr))
        assert stopped.returncode != 0 and "3" in codes and codes <= {"3", "-15", "143"}, stopped.stderr
        assert "Traceback" not in said[0] and not output.exists()
        assert list((tmp_path / "e.parquet.parts").glob("part-*"))
    done = run("--max_bad_fraction", "0.1")  # 2 / 24 = 0.083
    assert done.returncode == 0, done.stderr
    assert "22 images of" in done.stdout and "were there from an earlier call" in done.stdout
    assert done.stdout.count("written to") == 1 and pq.read_table(output).num_rows == 22


def test_a_process_does_not_work_on_for_hours_when_another_has_stopped(model, tmp_path):
    photos, output = uneven(tmp_path / "photos"), tmp_path / "e.parquet"

    def work(rank: int) -> float:
        started = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            real = task._Work._features

            def slow(self, rows):
                time.sleep(0.7 if rank == 0 else 0)  # four parts of two batches each: 5.6 s if it goes on
                return real(self, rows)

            patch.setattr(task._Work, "_features", slow)
            with pytest.raises(TooManyBadImages, match="2 of the 3 images read so far") as raised:
                embed(options(model, photos, output, max_bad_fraction=0.01))
        assert raised.value.shared
        return time.monotonic() - started

    for seconds in run_together(work):
        assert seconds < 4.5
    written = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "e.parquet.parts").glob("part-*"))
    assert 1 <= written < 12
    found = embed(options(model, photos, output, max_bad_fraction=0.1))
    assert (found.count, len(found.bad), found.computed) == (22, 2, 22 - written)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_bar_knows_how_many_images_are_to_be_embedded(model, photos, tmp_path, streaming, monkeypatch):
    """Those of parts that are not there yet."""
    seen: list[tuple[object, int]] = []

    class Bar:
        def __init__(self, rows, name, total):
            self.total, self.n = total, 0

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            seen.append((self.total, self.n))

        def update(self, count):
            self.n += count

    monkeypatch.setattr(task, "progress", Bar)
    output = tmp_path / "e.parquet"
    given = {"streaming": streaming, "max_bad_fraction": 0.2}
    embed(options(model, photos, output, split=("train",), **given))
    assert seen == [(None if streaming else 8, 8)]
    output.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(task, "merge", lambda *given: (0, []))
        embed(options(model, photos, output, split=("train", "test"), **given))
    if not streaming:  # a part of a stream is a shard, whose length is not known
        for name in ("part-0-000000", "part-1-000001"):  # three images and one
            (tmp_path / "e.parquet.parts" / f"{name}.parquet").unlink()
        embed(options(model, photos, output, split=("train", "test"), **given))
        assert seen[1:] == [(12, 12), (4, 4)]


def test_classes_of_splits_are_matched_by_name(model, photos, tmp_path):
    """A split may lack a class, so that its numbers of the others differ."""
    (photos / "train" / "bee").mkdir()
    (photos / "train" / "ant" / "broken.png").unlink()
    (photos / "train" / "bee" / "0.png").write_bytes((photos / "train" / "ant" / "0.png").read_bytes())
    embed(options(model, photos, tmp_path / "e.parquet"))
    table = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert {(row["split"], row["label"], row["label_name"]) for row in table} == {
        ("train", 0, "ant"),
        ("train", 1, "bee"),
        ("train", 2, "cat"),
        ("test", 0, "ant"),
        ("test", 2, "cat"),
    }
    assert all(row["id"].split("/")[1] == row["label_name"] for row in table)


def test_embeddings_of_data_that_changed_are_not_taken_for_those_of_today(model, photos, tmp_path):
    output = tmp_path / "e.parquet"
    embed(options(model, photos, output))
    assert embed(options(model, f"{photos}/", output)) is None  # the same data set, spelt otherwise
    file = photos / "test" / "ant" / "0.png"
    Image.fromarray(natural_image(80, 96, seed=99)).save(file)
    with pytest.raises(UserError, match=r"exists and holds something else \(files\)"):
        embed(options(model, photos, output))
