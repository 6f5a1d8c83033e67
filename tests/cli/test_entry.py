"""The command line: quick help without heavy imports, one spelling rule, plain errors, exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ladder_training.cli import pretrain
from ladder_training.cli.entry import main
from ladder_training.config.recipe import own_fields
from ladder_training.errors import TrainingStopped
from ladder_training.runs.interruption import Interrupted

HEAVY = ("torch", "transformers", "datasets", "evaluate", "torchvision", "sklearn", "matplotlib", "accelerate", "cv2")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["pretrain", "--help"],
        ["pretrain", "digits", "--max_steps", "3", "--help"],
        ["evaluate", "--help"],
        ["evaluate", "knn", "--help"],
        ["export", "--help"],
        ["push", "--help"],
        ["card", "--help"],
        ["demo", "--help"],
        ["inspect", "--help"],
        ["prepare", "--help"],
    ],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from ladder_training.cli.entry import main; "
        f"code = main({words!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip().splitlines()[-1] == "[]"
    assert "usage: ladder" in result.stdout


def test_help_lists_our_own_options(capsys: pytest.CaptureFixture) -> None:
    for words in (["--help"], ["pretrain", "--help"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        for name in own_fields():
            assert f"--{'from' if name == 'from_model' else name} " in text
        assert "--adam_beta1" not in text


def test_help_all_adds_every_inherited_field(capsys: pytest.CaptureFixture) -> None:
    import dataclasses

    from transformers import TrainingArguments

    assert main(["pretrain", "--help-all"]) == 0
    text = capsys.readouterr().out
    for item in dataclasses.fields(TrainingArguments):
        if item.init and item.name != "output_dir":
            assert f"--{item.name} " in text
    assert "--output " in text


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list:
    """What `ladder pretrain` was asked to run, without running it."""
    import ladder_training.pretraining.run

    calls: list = []
    monkeypatch.setattr(ladder_training.pretraining.run, "pretrain", lambda recipe: calls.append(recipe) or 0)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["--max_steps", "40"],
        ["--max-steps", "40"],
        ["--max-steps=40"],
        ["--max_steps=40"],
        ["--max_steps", "3", "--max_steps", "40"],
    ],
)
def test_dashes_and_underscores_are_the_same(words: list[str], resolved: list) -> None:
    assert main(["pretrain", "digits", *words]) == 0
    assert resolved[0].arguments["max_steps"] == 40


@pytest.mark.parametrize(
    ("words", "said", "field", "value"),
    [
        (["--steps", "5", "--steps=7"], "--steps is given twice, as 5 and as 7: the last one counts", "max_steps", 7),
        (
            ["--lr", "1e-3", "--learning-rate", "2e-3"],
            "--lr 1e-3 and --learning_rate 2e-3 are one setting",
            "learning_rate",
            2e-3,
        ),
        (["--bf16", "--no-bf16"], "--bf16 true and --no_bf16 false are one setting", "bf16", False),
        (
            ["--hub_token", "hf_one", "--hub_token", "hf_two"],
            "--hub_token is given twice, with two values",
            "hub_token",
            "hf_two",
        ),
        (["--steps", "5", "--max_steps", "5"], "", "max_steps", 5),
    ],
)
def test_of_a_setting_given_twice_the_last_counts_and_it_is_said(
    words: list[str], said: str, field: str, value: object, resolved: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "digits", *words]) == 0
    assert resolved[0].arguments[field] == value
    told = [line for line in capsys.readouterr().err.splitlines() if "twice" in line or "one setting" in line]
    assert len(told) == bool(said) and said in "".join(told)
    assert "hf_" not in "".join(told)


@pytest.mark.parametrize(
    ("typed", "field", "value"),
    [
        ("--lr 1e-3", "learning_rate", 1e-3),
        ("--epochs 3", "num_train_epochs", 3.0),
        ("--steps 7", "max_steps", 7),
        ("--batch-size 32", "per_device_train_batch_size", 32),
        ("--workers=2", "dataloader_num_workers", 2),
        ("--data here", "dataset", "here"),
        ("--lr 1e-2 --learning_rate 1e-3", "learning_rate", 1e-3),
    ],
)
def test_the_words_that_people_type(typed: str, field: str, value: object, resolved: list) -> None:
    assert main(["pretrain", "digits", *typed.split()]) == 0
    assert resolved[0].values[field] == value


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("pretrain --help", "One of lars, sgd, adamw."),
        ("pretrain --help", "One of ladder, byol, simsiam."),
        ("export --help", "One of transformers, torchvision, timm, detectron2, onnx."),
        ("pretrain --help", "Also --lr."),
        ("inspect --help", "Also --data."),
        ("inspect --help", "Also --workers."),
        ("evaluate knn --help", "Also --data."),
    ],
)
def test_help_lists_choices_and_other_names(words: str, shown: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words.split()) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


def test_a_command_says_at_once_that_it_has_started() -> None:
    """Before anything heavy is imported; that the process prints it within a second is what `--help` also needs."""
    code = (
        "import builtins, sys; from ladder_training.cli import entry; "
        "sys.stderr.write('') ; real = builtins.__import__; "
        "refuse = lambda name, *a, **k: sys.exit(9) if name.split('.')[0] == 'torch' else real(name, *a, **k); "
        "builtins.__import__ = refuse; entry.main(['evaluate', 'knn', '--model', 'x', '--dataset', 'digits'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 9
    assert done.stderr.splitlines()[0] == "ladder evaluate: loading the libraries ..."


def test_options_of_every_kind(resolved: list) -> None:
    words = """pretrain --streaming digits --dataset a --dataset b --level-weights 0.25 1 --no-stop-on-collapse
    --weight-decay 1e-6 --max-steps -1 --output-dir here --from there --adam_epsilon=1e-9""".split()  # noqa: SIM905
    assert main([*words, "--backbone_config", "{model_type: resnet, depths: [1, 1, 1, 1]}"]) == 0
    recipe = resolved[0]
    assert recipe.name == "digits"
    assert recipe.data.streaming is True
    assert recipe.data.dataset == ["a", "b"]
    assert recipe.model.level_weights == [0.25, 1]
    assert recipe.model.backbone_config == {"model_type": "resnet", "depths": [1, 1, 1, 1]}
    assert recipe.model.from_model == "there"
    assert recipe.run.output == "here"
    assert recipe.arguments["stop_on_collapse"] is False
    assert recipe.arguments["weight_decay"] == 1e-6
    assert recipe.arguments["max_steps"] == -1
    assert recipe.arguments["adam_epsilon"] == 1e-9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretran"], "did you mean pretrain?"),
        (["pretrain"], "give --dataset FOLDER"),
        (["pretrain", "no/such.yaml"], "there is no recipe"),
        (["pretrain", "digits", "--max-stps", "3"], "unknown option --max_stps; did you mean --max_steps?"),
        (["pretrain", "digits", "--levl-weights", "3"], "did you mean --level_weights?"),
        (["pretrain", "digits", "--max-steps"], "option --max_steps needs a value"),
        (["pretrain", "digits", "--max-steps", "many"], "max_steps must be a whole number"),
        (["pretrain", "digits", "--streaming", "digits"], "digits"),
        (["pretrain", "digits", "--optimizer", "larz"], "optimizer must be one of"),
        (["pretrain", "digits", "--lr-scheduler-type", "cosin"], "training arguments"),
        (["pretrain", "digits", "--level-names", "stage9"], "level_names has 'stage9'"),
        (["pretrain", "digits", "--backbone-config", "{model_type: resnt}"], "resnt"),
        (["evaluate"], "evaluate needs a task"),
        (["evaluate", "knm"], "did you mean knn?"),
        (["evaluate", "knn", "--model", "x"], "--dataset is needed"),
        (["evaluate", "knn", "--model", "./none", "--dataset", "digits"], "there is no folder ./none"),
        (["evaluate", "knn", "--model", "x", "--dataset", "digits", "--kk", "3"], "unknown option --kk"),
        (["push", "somewhere"], "REPO (see `ladder push --help`)"),
        (["card", "./nowhere"], "nowhere"),
        (["export"], "CHECKPOINT (see `ladder export --help`)"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("ladder: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TrainingStopped("stage2.local has\ncollapsed"), 3, "ladder: stopped: stage2.local has collapsed\n"),
        (KeyboardInterrupt(), 130, "ladder: interrupted; the same command goes on from the last checkpoint\n"),
    ],
)
def test_stops_and_interrupts_are_one_line(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(options: Any) -> None:
        raise error

    monkeypatch.setattr(pretrain, "pretrain_command", fail)
    assert main(["pretrain", "digits"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_an_interrupt_of_the_whole_job_is_told_by_the_first_process(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(options: Any) -> None:
        error = Interrupted(15)
        error.shared = True
        raise error

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(pretrain, "pretrain_command", stop)
    assert main(["pretrain", "digits"]) == 143
    assert capsys.readouterr().err.count("ladder: interrupted by SIGTERM") == lines


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "no_such_recipe"],
        ["pretrain", "digits", "--max_step", "4"],
        ["pretrain", "digits", "--max_steps", "many"],
        ["evaluate", "knn", "--model", "m", "--dataset", "d", "--neighbours", "many"],
        ["finetune", "segmentation", "--model", "m", "--dataset", "d", "--output", "o", "--steps", "many"],
        ["compare", "digits"],
    ],
)
def test_a_mistake_in_the_words_is_said_once_per_machine(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The first machine may have a recipe that the second one lacks, so the first process alone must not speak."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    said = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank % 2))
        assert main(words) == 2
        said.append(capsys.readouterr().err.count("ladder: error: "))
    assert said == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "name", ["compare", "export", "import", "card", "explore", "report", "push", "prepare", "demo"]
)
def test_commands_of_one_process_refuse_several(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([name, "x"]) == 2
    assert capsys.readouterr().err == (
        f"ladder: error: `ladder {name}` works in one process, but a launcher has started 2 (WORLD_SIZE is 2): "
        "start it without accelerate or torchrun, which are for pretrain, evaluate, finetune, embed\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_module_and_the_script_are_the_same_command() -> None:
    script = Path(sys.executable).with_name("ladder")
    for start in ([sys.executable, "-m", "ladder_training"], [str(script)]):
        done = subprocess.run([*start, "--version"], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith("ladder-siamese "), done.stderr
        wrong = subprocess.run([*start, "pretran"], capture_output=True, text=True, timeout=60, check=False)
        assert wrong.returncode == 2
        assert "Traceback" not in wrong.stderr


def test_secrets_stay_out_of_the_recorded_command() -> None:
    from ladder_training.runs.run_folder import command_line, recorded_values

    for words in (["--hub-token", "hf_secret"], ["--hub_token=hf_secret"]):
        assert "hf_secret" not in command_line(["pretrain", "digits", *words, "--seed", "1"])
        assert command_line(["pretrain", "digits", *words, "--seed", "1"]).endswith("--seed 1")
    assert "hf_secret" not in json.dumps(recorded_values({"hub_token": "hf_secret", "seed": 1}))
