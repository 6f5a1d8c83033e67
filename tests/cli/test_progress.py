"""Commands that may take long say at once that they have started, and then what they are doing."""

import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.models import tiny_native_backbone
from ladder_model_cards import write_card
from ladder_training.cli.entry import main
from ladder_training.loading import progress as progress_module
from ladder_training.loading.progress import progress
from ladder_training.models.processor import image_processor

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "datasets",
    "matplotlib",
    "huggingface_hub",
    "torchvision",
    "ladder_model_cards",
)
WORDS = {
    "export": ["export", "MODEL", "--output", "OUT"],
    "push": ["push", "MODEL", "user/name", "--dry_run"],
    "finetune": ["finetune", "classification", "--model", "MODEL", "--dataset", "digits", "--output", "OUT"],
    "import": ["import", "FILE", "--output", "OUT"],
    "report": ["report", "MODEL"],
}


class Endless(torch.utils.data.IterableDataset):
    """A stream of numbers."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_native_backbone(seed=1, out_features=["stage1", "stage2", "stage3", "stage4"]).save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", WORDS)
def test_the_first_line_comes_before_anything_heavy_is_imported(command: str, model: Path, tmp_path: Path) -> None:
    """The process ends at the first heavy import; what it has said by then is all that the user waits for."""
    places = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "weights.pth")}
    code = f"""
import builtins, sys
from ladder_training.cli import entry
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
real = builtins.__import__
def refuse(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name.split(".")[0] in {HEAVY}:
        print("first heavy import:", name, file=sys.stderr)
        sys.exit(9)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = refuse
entry.main({[places.get(word, word) for word in WORDS[command]]})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 9, done.stderr
    first, *_, last = done.stderr.splitlines()
    assert first == f"ladder {command}: loading the libraries ..." and last.startswith("first heavy import:")


def lines_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a command says on stderr while it works."""
    assert main(words) == 0
    return [line for line in capsys.readouterr().err.splitlines() if line.endswith(" ...")]


def test_export_says_what_it_does(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    words = ["export", str(model), "--output", str(output), "--format"]
    assert lines_of([*words, "transformers"], capsys)[-2:] == [
        f"reading the model {model} ...",
        f"writing its backbone for transformers to {output} ...",
    ]


def test_a_log_holds_no_bars_of_other_libraries_but_those_of_downloads_stay(model: Path, tmp_path: Path) -> None:
    """transformers draws bars for tensors it loads and files it writes, also where there is no terminal."""
    code = (
        "from ladder_training.cli.entry import main; from huggingface_hub.utils import are_progress_bars_disabled; "
        f"code = main(['export', {str(model)!r}, '--output', {str(tmp_path / 'out')!r}]); "
        "print('hidden:', are_progress_bars_disabled()); raise SystemExit(code)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=True)
    assert "%|" not in done.stderr and "\r" not in done.stderr
    assert all(line.endswith(" ...") for line in done.stderr.splitlines())
    assert done.stdout.splitlines()[-1] == "hidden: False"


def test_push_says_what_it_does(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(["push", str(model), "user/name", "--dry_run"], capsys)[-1] == f"checking the files of {model} ..."


def test_report_says_what_it_does(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_card(model)
    assert lines_of(["report", str(model)], capsys)[-1] == f"reading {model} and drawing its report ..."


def test_import_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torchvision

    file, output = tmp_path / "weights.pth", tmp_path / "out"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    assert lines_of(["import", str(file), "--output", str(output)], capsys)[-2:] == [
        f"reading the weights {file} ...",
        f"writing the backbone to {output} ...",
    ]


def test_work_that_takes_seconds_is_one_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(float(second) for second in range(100))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    assert list(progress(range(10), "scoring")) == list(range(10))
    # Every item takes a second by this clock, which was read once before the first: two are done after the third.
    assert capsys.readouterr().err == "scoring: 2 of 10 done after 3 s, about 12 s more ...\n"
    assert list(progress(iter("ab"), "short")) == ["a", "b"]
    assert list(progress(iter("abcdef"), "no end known")) == list("abcdef")
    assert capsys.readouterr().err == "no end known: 2 done after 3 s ...\n"
    monkeypatch.setenv("RANK", "1")
    assert list(progress(range(10), "scoring")) == list(range(10))
    assert capsys.readouterr().err == ""


def test_work_that_moves_its_bar_itself_is_said_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of `ladder prepare`, which may go on after what an earlier call has done."""
    clock = iter(float(second) for second in range(100))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    with progress(None, "preparing train", 60) as bar:
        bar.initial = 30
        bar.update(30)
        for _ in range(8):
            bar.update()
    # The 30 of before are no work of this call: two images took three seconds, 28 are left.
    assert capsys.readouterr().err == "preparing train: 32 of 60 done after 3 s, about 42 s more ...\n"


def test_of_several_processes_on_a_terminal_one_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    drawn = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = progress(range(3), "embeddings")
        if rank == "0":
            bar.delay = 0
        for _ in bar:
            time.sleep(0.15)
        drawn.append("embeddings" in terminal.getvalue())
    assert drawn == [True, False]


def test_a_terminal_has_the_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress_module, "say", said.append)

    class Terminal:
        """A terminal that keeps what is written."""

        text = ""
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None: ...

    terminal: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = progress(range(3), "fine-tuning")
    bar.delay = 0
    for _ in bar:
        time.sleep(0.15)
    assert "fine-tuning" in terminal.text and said == []


def test_a_stream_has_no_length_and_needs_none() -> None:
    """The `__len__` of a DataLoader over a stream raises TypeError."""
    loader = torch.utils.data.DataLoader(Endless(), batch_size=None)
    assert list(itertools.islice(progress(loader, "a stream"), 3)) == [0, 1, 2]
