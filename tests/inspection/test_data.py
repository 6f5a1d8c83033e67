"""`ladder inspect`: what it counts, what it draws, what it measures, and what it says of mistakes."""

import json
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.stream_data import encoded, write_tar
from ladder_training.cli.entry import main
from ladder_training.data.sources import load_image_stream
from ladder_training.evaluation.backbone import ImageSettings
from ladder_training.evaluation.image_transforms import CenterTransform
from ladder_training.inspection.contact_sheet import VIEW_COLOURS, contact_sheet, save_contact_sheet, source_points
from ladder_training.inspection.data import inspect_data, inspect_one
from ladder_training.inspection.report import print_report
from ladder_training.inspection.sample import evenly
from ladder_training.inspection.speed import compare_with_step, measure_step
from ladder_training.loading.depth import say_if_dark
from ladder_training.views.two_views import TwoViewTransform
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
from modeling_ladder.matching import match_locations

CAPTION, MARGIN = 24, 8


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """28 images of two classes: colour, grey, transparent and 16-bit ones, one on its side, and five broken."""
    folder = tmp_path / "mixed"
    for number in range(20):
        path = folder / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(12, seed=number))  # 16 wide, 12 high
    pixels = np.arange(30 * 20, dtype=np.uint16).reshape(20, 30)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "a" / "grey.png")
    Image.fromarray(pixels * 100).save(folder / "a" / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 50, 3), np.uint8)).save(folder / "b" / "turned.jpg", exif=exif)
    (folder / "a" / "zero.jpg").write_bytes(b"")
    (folder / "a" / "page.jpg").write_text("<html>")
    (folder / "b" / "cut.jpg").write_bytes(encoded(40)[:-500])
    (folder / "b" / "link.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "b" / "folder.png").mkdir()
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_counted(mixed: Path, streaming: bool) -> None:
    report, images = inspect_one(load_image_stream(mixed, streaming=streaming), limit=0)
    assert report["images"] == report["looked_at"] == 28
    assert report["unreadable"] == 5
    assert report["unreadable_share"] == 5 / 28
    reasons = {Path(bad["key"]).name: bad["reason"] for bad in report["unreadable_examples"]}
    assert reasons.keys() == {"zero.jpg", "page.jpg", "cut.jpg", "link.jpg", "folder.png"}
    assert reasons["folder.png"] == "a directory, not a file"
    assert reasons["link.jpg"] == "a broken symbolic link"
    assert report["formats"] == {"JPEG": 21, "PNG": 2}
    assert report["modes"] == {"RGB": 21, "L": 1, "I;16": 1}
    assert report["width"] == {"smallest": 10, "median": 16, "largest": 30}  # the turned one is 10 wide and 50 high
    assert report["height"] == {"smallest": 12, "median": 12, "largest": 50}
    assert report["labels"] == {"0": 12, "1": 11}
    assert (report["image_column"], report["label_column"], report["classes"]) == ("image", "label", 2)
    assert len(images) == 8


def test_a_sample_is_spread_over_the_data_and_so_are_the_images_shown(tmp_path: Path) -> None:
    """In a data set sorted by class the first eight images would all be of one."""
    rows = [{"bytes": encoded(8, seed=number, kind="PNG"), "path": None} for number in range(100)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict({"image": rows, "label": [n // 10 for n in range(100)]}, features=features)
    report, images = inspect_one(dataset, limit=50)
    assert report["looked_at"] == 50
    assert report["labels"] == {str(label): 5 for label in range(10)}
    shown = [next(n for n in range(100) if rows[n]["bytes"] == image) for image in images]
    assert len({n // 10 for n in shown}) >= 7
    assert evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 8) == [1, 2]
    assert evenly([], 8) == []


def test_the_sheet_has_a_row_for_each_image_with_boxes_views_and_points() -> None:
    transform = TwoViewTransform(size=40, jitter=0.0, grayscale=0.0, blur=(0.0, 0.0), solarize=(0.0, 0.0))
    images = [np.full((60, 100, 3), level, np.uint8) for level in (90, 160)]
    sheet = contact_sheet(images, transform, seed=4, cell=200, grid_size=3)
    assert sheet.shape == (CAPTION + 2 * (200 + MARGIN), 3 * (200 + MARGIN) + MARGIN, 3)
    for row, image in enumerate(images):
        top = CAPTION + row * (200 + MARGIN)
        source, *drawn = (sheet[top : top + 200, MARGIN + k * (200 + MARGIN) :][:, :200] for k in range(3))
        views = transform(image, seed=4 + row)
        # 100 x 60 fills the width of the cell: 200 x 120, with 40 rows of paper above and below
        assert (source[20, 100] == 255).all()
        for view, colour in enumerate(VIEW_COLOURS):
            x0, y0, _, y1 = views["view_boxes"][view].tolist()
            middle = (round(200 * x0), round(40 + 120 * (y0 + y1) / 2))
            edge = source[middle[1] - 25 : middle[1] + 25, max(0, middle[0] - 1) : middle[0] + 2]
            assert np.abs(edge.astype(int) - colour).sum(axis=-1).min() < 120  # smoothed; grey is 210 away
            assert (drawn[view][0, 100] == colour).all()
            assert (drawn[view][6, 6] == image[0, 0]).all()  # the view itself, without normalisation
        match = match_locations(views["view_boxes"][None], views["view_flips"][None], 3)
        if match.valid[0]:
            for view in range(2):
                # each point has its own colour, the same in all three pictures
                for point, seen in zip(
                    source_points(views["view_boxes"].numpy(), 3), match.points[view][0].tolist(), strict=True
                ):
                    column, line = round(200 * point[0]), round(40 + 120 * point[1])
                    x, y = (round(200 * value) for value in seen)
                    if min(x, y) > 5 and max(x, y) < 194:
                        assert (source[line, column] == drawn[view][y, x]).all()


def test_points_on_the_image_and_in_the_views_are_the_same_places() -> None:
    transform = TwoViewTransform(size=32)
    image, flipped = np.zeros((70, 90, 3), np.uint8), set()
    for seed in range(30):
        views = transform(image, seed=seed)
        match = match_locations(views["view_boxes"][None], views["view_flips"][None], 4)
        if not match.valid[0]:
            continue
        boxes = views["view_boxes"].numpy()
        for view in range(2):
            inside = (source_points(boxes, 4) - boxes[view, :2]) / (boxes[view, 2:] - boxes[view, :2])
            if views["view_flips"][view]:
                inside[:, 0] = 1 - inside[:, 0]
            flipped.add(bool(views["view_flips"][view]))
            assert np.abs(inside - match.points[view][0].numpy()).max() < 1e-5
    assert flipped == {False, True}


def test_a_sheet_of_unreadable_images_and_of_device_mode(tmp_path: Path) -> None:
    transform = TwoViewTransform(size=24, device_mode=True)
    empty = contact_sheet([b"", b"<html>"], transform, cell=50)
    assert (empty[CAPTION:] == 255).all()
    path = save_contact_sheet([b"", encoded(30)], transform, tmp_path / "sheet.png", cell=50)
    assert cv2.imread(str(path)).shape == (CAPTION + 50 + MARGIN, 3 * (50 + MARGIN) + MARGIN, 3)
    assert [found.name for found in tmp_path.iterdir()] == ["sheet.png"]
    plain = contact_sheet([encoded(30)], TwoViewTransform(size=24), cell=50).astype(int)
    assert np.abs(plain - contact_sheet([encoded(30)], transform, cell=50)).mean() < 1


def test_the_input_against_the_step() -> None:
    measured = {"images_per_second": 300.0, "workers": 2}
    found = compare_with_step(measured, step_seconds=0.5, step_images=64)
    assert found == {
        "seconds": 0.5,
        "images": 64,
        "images_per_second": 128.0,
        "input_is_faster": True,
        "workers_needed": 1,
    }
    slow = compare_with_step(measured, step_seconds=0.05, step_images=64)
    assert slow["input_is_faster"] is False
    assert slow["workers_needed"] == 9  # 1280 a second, at 150 a worker
    assert compare_with_step(None, 1.0, 4)["input_is_faster"] is None


@pytest.mark.parametrize("device_mode", [False, True])
def test_a_step_is_timed_without_a_trace(tiny_backbone, device_mode: bool) -> None:
    model = LadderSiameseForPreTraining(
        LadderSiameseConfig(backbone_config=tiny_backbone, projection_hidden_size=16, projection_size=8)
    )
    seconds, images = measure_step(model, TwoViewTransform(size=32, device_mode=device_mode), 16)
    assert 0 < seconds < 30
    assert images == 2
    assert all(parameter.grad is None for parameter in model.parameters())
    assert measure_step(model, TwoViewTransform(size=32), 2, autocast=torch.bfloat16)[0] > 0


@pytest.mark.parametrize("streaming", [False, True])
def test_the_command(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture, streaming: bool) -> None:
    words = ["inspect", "--dataset", str(mixed), "--recipe", "digits", "--output", str(tmp_path / "look")]
    assert main([*words, *(["--streaming"] if streaming else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{mixed}: 28 images"
    printed = "\n".join(lines)
    for text in (
        "images in image",
        "label, 2 classes",
        "5 of 28 looked at (17.86 %)",
        "zero.jpg: empty: 0 bytes",
        "10 to 30, median 16",
        "RGB 21",
        "images/s with no workers",
        "s for a step of 2: ",
        str(tmp_path / "look" / "views.png"),
    ):
        assert text in printed
    report = json.loads((tmp_path / "look" / "inspect.json").read_text())
    assert report["datasets"][0]["unreadable"] == 5
    assert report["datasets"][0]["input"]["images_per_second"] > 0
    assert report["datasets"][0]["step"]["images_per_second"] > 0
    assert cv2.imread(report["sheet"]).shape[0] == CAPTION + 8 * (224 + MARGIN)


def test_two_data_sets_share_a_sheet_and_shards_are_read(mixed: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "a-000.tar", [encoded(seed=n) for n in range(12)], labels="cls")
    names = [str(mixed), str(tmp_path / "set" / "a-000.tar")]
    transform = TwoViewTransform(size=32)
    found = inspect_data(names, output=tmp_path / "look", transform=transform, streaming=True, seconds=0.1)
    first, second = found["datasets"]
    assert (first["looked_at"], second["looked_at"]) == (28, 12)
    assert (second["image_column"], second["label_column"]) == ("jpg", "label")
    assert second["step"] is None
    assert cv2.imread(found["sheet"]).shape[0] == CAPTION + 8 * (224 + MARGIN)
    assert inspect_data([mixed], transform=transform, seconds=0.1)["sheet"] is None


def test_a_data_set_of_unreadable_images_only(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(b"<html>")
    found = inspect_data([tmp_path / "set"], output=tmp_path / "look", transform=TwoViewTransform(size=32), seconds=0.1)
    assert found["datasets"][0]["unreadable_share"] == 1.0
    assert found["datasets"][0]["input"] is None
    assert found["sheet"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no data set: give --dataset, or --recipe with one"),
        (["--dataset", "./nowhere"], "./nowhere: no such data set"),
        (["--dataset", "words.parquet"], "no image column in the data set; its columns are: text, size"),
        (
            ["--dataset", "digits", "--image_column", "photo"],
            "no column 'photo' in the data set; its columns are: image",
        ),
        (["--dataset", "digits", "--split", "validation"], "no split 'validation'; its splits are: train, test"),
        (["--dataset", "digits", "--image_size", "1"], "image_size must be at least 2 and at most 8192, got 1"),
        (["--dataset", "digits", "--recipe", "digit"], "did you mean digits?"),
        (["--dataset", "nobody/nothing"], "the Hub cannot be reached"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets.Dataset.from_dict({"text": ["a"], "size": [1]}).to_parquet("words.parquet")
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in str(path))
    capsys.readouterr()
    assert main(["inspect", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # above it may stand a progress bar of `datasets`
    assert error.startswith("ladder: error: ")
    assert message in error
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in str(path)) == before


def test_the_values_of_images_of_more_than_8_bits_are_said_and_the_option_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        values = rng.integers(0, 4096, (16, 16)).astype(np.uint16)
        values[0, :2] = 0, 4095
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").touch()
    report, _ = inspect_one(load_image_stream(tmp_path))
    assert report["deep"] == {"images": 3, "smallest": 0.0, "largest": 4095.0, "not_numbers": []}
    lines: list[str] = []
    print_report({"datasets": [finished(report)], "sheet": None}, lines.append)
    assert (
        "  values      0 to 4095 in 3 images of more than 8 bits: only the 17 darkest of 256 levels are used; give the "
        "range with --image_range 0 4095" in lines
    )
    assert any("left out: 1 files with an ending that is not an image's: 1 .txt (notes.txt)" in line for line in lines)
    ranged, _ = inspect_one(load_image_stream(tmp_path), value_range=(0, 4095))
    lines.clear()
    print_report({"datasets": [finished(ranged)], "sheet": None}, lines.append)
    assert any(line.endswith("--image_range 0 4095 is black to white") for line in lines)
    one = load_image_stream(tmp_path)[0]["image"]
    pixels = CenterTransform(ImageSettings(16, 1.0, (0.0,) * 3, (1.0,) * 3, (0.0, 4095.0)))(one)
    assert len(np.unique(np.asarray(one))) > 200
    assert len(pixels.unique()) > 140


def finished(report: dict) -> dict:
    """A report of one data set as `inspect_data` completes it, without the speed."""
    notes = [
        f"left out: {left['count']} {left['what']} ({left['examples'][0]})" for left in report["account"]["left_out"]
    ]
    return {**report, "name": "x", "notes": notes, "input": None, "step": None}


def test_images_without_a_label_are_counted(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": encoded(8, n), "path": None} for n in range(4)], "label": [1, None, 0, -1]}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    report, _ = inspect_one(data, label_column="label")
    assert (report["without_label"], report["labels"]) == (2, {"1": 1, "0": 1})


def test_values_that_are_no_numbers_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        values = np.full((10, 10), 0.5, dtype=np.float32)
        values[0, :number] = np.nan
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
    Image.fromarray(np.full((10, 10), np.nan, dtype=np.float32)).save(tmp_path / "nothing.tif")
    report, _ = inspect_one(load_image_stream(tmp_path))
    assert report["deep"]["not_numbers"] == pytest.approx([0.01, 0.02, 0.03])
    assert [bad["reason"] for bad in report["unreadable_examples"]] == ["none of its values is a number"]
    lines: list[str] = []
    print_report({"datasets": [finished(report)], "sheet": None}, lines.append)
    said = "3 of 4 images of more than 8 bits hold values that are no number (NaN, infinite), up to 3.0% of an image"
    assert any(said in line for line in lines)
    # Every command that reads images says it, whatever the range.
    say_if_dark("photos", load_image_stream(tmp_path), "image", (0, 1))
    assert said in caplog.text
