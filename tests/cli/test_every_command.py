"""What holds for every command that reads images or writes a record, tried with each of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.models import TINY_YAML, tiny_native_backbone
from helpers.stream_data import encoded
from ladder_training.cli.entry import main
from ladder_training.data.sources import load_image_stream
from ladder_training.exploration.collection import open_collection
from ladder_training.exploration.options import ExploreOptions
from ladder_training.models.processor import image_processor

pytestmark = pytest.mark.usefixtures("own_cache")

RECIPE = f"""
image_size: 32
backbone_config: {TINY_YAML}
projection_hidden_size: 32
projection_size: 16
optimizer: adamw
learning_rate: 1e-3
per_device_train_batch_size: 8
max_steps: 30
logging_steps: 30
save_steps: 30
shuffle_buffer: 8
max_bad_fraction: 0.2
stop_on_collapse: false
use_cpu: true
disable_tqdm: true
"""
IMAGES = 210
"""So many that one or two unreadable ones are within the 1 % that an evaluation allows."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_native_backbone().save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    return folder


def fill(folder: Path, images: int = IMAGES) -> Path:
    """Two classes in two splits."""
    for split, count in (("train", images), ("test", 12)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(12, number + 1000 * (split == "test")))
    return folder


def _pretrain(data: Path, output: Path, model: Path, *more: str) -> int:
    recipe = output / "recipe.yaml"
    recipe.write_text(RECIPE)
    words = ["--dataset", str(data), "--output", str(output / "run"), *more]
    return main(["pretrain", str(recipe), *words])


def _evaluate(task: str, *settings: str) -> Callable[..., int]:
    def run(data: Path, output: Path, model: Path, *more: str) -> int:
        words = ["--model", str(model), "--dataset", str(data), "--output", str(output), "--untrained", "false"]
        return main(["evaluate", task, *words, *settings, *more])

    return run


def _finetune(data: Path, output: Path, model: Path, *more: str) -> int:
    words = ["--model", str(model), "--dataset", str(data), "--output", str(output / "tuned")]
    return main(["finetune", "classification", *words, "--max_steps", "2", "--learning_rates", "1e-3", *more])


def _embed(data: Path, output: Path, model: Path, *more: str) -> int:
    return main(["embed", "--model", str(model), "--dataset", str(data), "--output", str(output / "e.parquet"), *more])


def _prepare(data: Path, output: Path, model: Path, *more: str) -> int:
    return main(["prepare", "--dataset", str(data), "--output", str(output / "shards"), "--workers", "1", *more])


def _inspect(data: Path, output: Path, model: Path, *more: str) -> int:
    return main(["inspect", "--dataset", str(data), "--output", str(output / "look"), *more])


def _explore(data: Path, output: Path, model: Path, *more: str) -> int:
    from ladder_training.data.left_out import told_once

    with told_once():
        options = ExploreOptions(model=str(model), dataset=str(data), trust_paths="--trust_paths" in more)
        open_collection(options, str(model), output)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "pretrain": _pretrain,
    "inspect": _inspect,
    "knn": _evaluate("knn", "--k", "3"),
    "linear": _evaluate("linear", "--epochs", "1"),
    "augmented linear": _evaluate("linear", "--augment", "--max_steps", "16", "--train_batch_size", "16"),
    "semi_supervised": _evaluate(
        "semi_supervised", "--label_fraction", "1", "--epochs", "1", "--min_steps", "1", "--learning_rates", "0.1"
    ),
    "finetune": _finetune,
    "embed": _embed,
    "prepare": _prepare,
    "explore": _explore,
}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_left_out_is_said(
    command: str, tmp_path: Path, output: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fill(tmp_path / "set", 60)
    (data / "train" / "a" / "photo.heic").write_bytes(b"x")
    assert COMMANDS[command](data, output, model) == 0
    said = capsys.readouterr().out
    assert "left out: 1 files with an ending that is not an image's: 1 .heic (a/photo.heic)" in said
    if command not in ("inspect", "knn", "linear", "augmented linear", "semi_supervised", "finetune"):
        assert said.count("photo.heic") == 1  # evaluations say it at their start, and in their report


@pytest.mark.parametrize("command", COMMANDS)
def test_pipes_and_devices_are_unreadable_images_and_nothing_waits_for_them(
    command: str, tmp_path: Path, output: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fill(tmp_path / "set")
    os.mkfifo(data / "train" / "a" / "pipe.jpg")
    (data / "train" / "b" / "zeros.jpg").symlink_to("/dev/zero")
    assert COMMANDS[command](data, output, model) == 0
    printed = capsys.readouterr()
    files = "".join(path.read_text(errors="replace") for path in output.rglob("*.json*"))
    names = [name for name in ("pipe.jpg", "zeros.jpg") if name in printed.out + printed.err + files]
    if command == "explore":  # its page shows what can be read
        names = list(_unreadable(output))
    assert len(names) == 2, printed
    assert "not a regular file" in printed.out + printed.err + files + json.dumps(_unreadable(output))


def _unreadable(output: Path) -> dict[str, str]:
    """What a file of embeddings says of images that could not be read."""
    files = [path for path in output.glob("*.parquet") if path.is_file()]
    metadata = [pq.read_schema(path).metadata for path in files]
    return dict(entry for found in metadata for entry in json.loads(found[b"ladder_embedding"])["unreadable"])


def rows_that_lead_outside(tmp_path: Path) -> Path:
    """A data set whose rows name 200 of its own files, and one that lies beside it."""
    data = fill(tmp_path / "set")
    (tmp_path / "private.jpg").write_bytes(encoded(12, 4711))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    metadata = _features().arrow_schema.metadata
    for split, count in (("train", IMAGES), ("test", 12)):
        paths = [f"{split}/{'ab'[number % 2]}/{number:03d}.jpg" for number in range(count)]
        paths += [str(tmp_path / "private.jpg")] if split == "train" else []
        rows = pa.array([{"bytes": None, "path": path} for path in paths], kind)
        table = pa.table({"image": rows, "label": pa.array([number % 2 for number in range(len(paths))], pa.int64())})
        pq.write_table(table.replace_schema_metadata(metadata), data / f"{split}.parquet", row_group_size=20)
    return data


def _features() -> Any:
    import datasets

    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_row_that_leads_outside_is_followed_only_if_it_is_trusted(
    command: str,
    streaming: bool,
    trust: bool,
    tmp_path: Path,
    output: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if streaming and command in ("semi_supervised", "finetune", "explore"):
        pytest.skip("reads no streams")
    data = rows_that_lead_outside(tmp_path)
    more = [*(["--streaming"] if streaming else []), *(["--trust_paths"] if trust else [])]
    pattern = f"{data}/{{train,test}}.parquet"
    assert COMMANDS[command](Path(pattern), output, model, *more) == 0
    printed = capsys.readouterr()
    files = "".join(path.read_text(errors="replace") for path in output.rglob("*.json*"))
    words = printed.out + printed.err + files + json.dumps(_unreadable(output))
    assert ("names a file or address outside of the data set" in words) is not trust
    assert str(encoded(12, 4711))[10:40] not in words


KEY, TOKEN = "AKIAIOSFODNN7EXAMPLE", "hf_abcdefghijklmnopqrst"


@pytest.mark.parametrize("command", [*COMMANDS, "planned pretrain"])
def test_no_secret_is_in_any_file_that_a_command_writes(
    command: str, tmp_path: Path, output: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key in the path of the data set, which is recorded everywhere, and a token among the options."""
    data = fill(tmp_path / f"set?sig={KEY}", 60)
    (data / "train" / "a" / "notes.txt").write_text("x")
    more = {"pretrain": ["--hub_token", TOKEN, "--run_name", f"password={KEY}"], "inspect": []}
    if command == "planned pretrain":
        words = ["--dataset", str(data), "--output", str(output / "run"), "--hub_token", TOKEN, "--use_cpu"]
        words += ["--max_steps", "1", "--per_device_train_batch_size", "4", "--backbone_config", TINY_YAML]
        words += ["--image_size", "32", "--stop_on_collapse", "false"]
        assert main(["pretrain", *words]) == 0
    else:
        assert COMMANDS[command](data, output, model, *more.get(command, [])) == 0
    leaking = [
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in (KEY, TOKEN))
    ]
    assert leaking == []
    assert TOKEN not in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_values_of_ten_bits_in_sixteen_are_said_with_the_option_for_them(
    command: str, tmp_path: Path, output: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set"
    for split, count in (("train", 60), ("test", 12)):
        for number in range(count):
            path = data / split / "ab"[number % 2] / f"{number:03d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 1024, (24, 24, 3), dtype=np.uint16)
            pixels[0, 0] = 1023
            cv2.imwrite(str(path), pixels)
    assert COMMANDS[command](data, output, model) == 0
    said = capsys.readouterr().out
    assert "only the 5 darkest of 256 levels are used; give the range with --image_range 0 1023" in said
    if command in ("embed", "explore"):  # they take the range of the model's run
        return
    (tmp_path / "again").mkdir()
    assert COMMANDS[command](data, tmp_path / "again", model, "--image_range", "0", "1023") == 0
    assert "darkest" not in capsys.readouterr().out
    if command == "prepare":
        first = next(iter(load_image_stream(tmp_path / "again" / "shards")))["image"]
        assert np.asarray(first).max() > 240
