"""`LadderTrainer` and the Hub: native backbones with this package's card, while training and after it."""

import json
import logging
import signal
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load, load_file
from transformers import TrainerCallback

from helpers.full_disk import full_disk
from helpers.hub_server import Fault, HubServer
from helpers.hub_server.tokens import INVALID, READ, WRITE
from helpers.processes import run_together
from helpers.view_dataset import ViewPairs
from ladder_model_cards.card import BEGIN
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.errors import UserError
from ladder_training.runs.interruption import Interrupted, StopRequest
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Cannot enable progress bars"),
]
NAME = "user/net"


class EndsAfter(TrainerCallback):
    """As if a signal came during a step."""

    def __init__(self, step: int, request: StopRequest) -> None:
        self.step, self.request = step, request

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.request.number = signal.SIGTERM


@pytest.fixture
def make(client: HubServer, tiny_backbone: Any, tmp_path: Path) -> Any:
    """Makes a trainer of two saves that pushes to the local Hub."""

    def trainer(**fields: Any) -> LadderTrainer:
        torch.manual_seed(0)
        heads = {"projection_hidden_size": 16, "projection_size": 8, "local_grid_size": 3}
        model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=tiny_backbone, **heads))
        defaults = {
            "output_dir": str(tmp_path / "net"),
            "max_steps": 4,
            "save_steps": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.5,
            "logging_steps": 2,
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "push_to_hub": True,
            "hub_model_id": NAME,
            "hub_token": WRITE,
            "hub_always_push": True,
        }
        return LadderTrainer(model, LadderTrainingArguments(**{**defaults, **fields}), ViewPairs())

    return trainer


def revisions(client: HubServer) -> list[tuple[str, dict[str, bytes]]]:
    """Titles and files of main's revisions after the Hub's own first one, oldest first."""
    return [(commit.title, commit.files) for commit in reversed(client.store.history(NAME))][1:]


def metadata(readme: bytes) -> dict[str, Any]:
    """The YAML block of a card."""
    return yaml.safe_load(readme.decode().split("---\n")[1])


def test_every_save_is_a_whole_native_revision(client: HubServer, make: Any, tmp_path: Path) -> None:
    trainer = make()
    assert client.store.repos[NAME].private is False, "made before the training, so that a bad token shows at once"
    trainer.train()
    result = trainer.push_to_hub(license="mit", dataset=["user/pets", "/data/mine"], model_name="My net")
    assert result.changed and result.commit == client.store.repos[NAME].branches["main"]
    found = revisions(client)
    assert [title for title, _ in found] == [
        "Training in progress, step 2",
        "Training in progress, step 4",
        "End of training",
    ]
    for step, (_, files) in zip((2, 4, 4), found, strict=True):
        assert set(files) == {".gitattributes", "config.json", "model.safetensors", "README.md", "figures/loss.png"}
        assert json.loads(files["config.json"])["architectures"] == ["ResNetBackbone"]
        saved = load_file(tmp_path / "net" / f"checkpoint-{step}" / "model.safetensors")
        online = {k.removeprefix("backbone."): v for k, v in saved.items() if k.startswith("backbone.")}
        sent = load(files["model.safetensors"])
        assert sent.keys() == online.keys() and all(torch.equal(sent[key], online[key]) for key in sent)
        card = files["README.md"].decode()
        assert "Ladder Siamese Network" in card and f'from_pretrained("{NAME}")' in card
        assert "More Information Needed" not in card and "generated automatically" not in card
        assert f"| Optimizer&nbsp;steps | {step} |" in card and f"| Images&nbsp;seen | {4 * step} |" in card
    assert "still going" in found[0][1]["README.md"].decode()
    last = metadata(found[2][1]["README.md"])
    assert (last["license"], last["datasets"]) == ("mit", ["user/pets"])
    assert "# My net\n" in found[2][1]["README.md"].decode() and "still going" not in found[2][1]["README.md"].decode()
    assert not list((tmp_path / "net").glob(".*")), "copies that were pushed are gone"
    client.clear()
    again = trainer.push_to_hub(license="mit", dataset=["user/pets", "/data/mine"], model_name="My net")
    assert again.commit == result.commit and len(revisions(client)) == 3


def test_no_file_holds_the_token(make: Any, tmp_path: Path) -> None:
    trainer = make(hub_strategy="end")
    trainer.train()
    trainer.push_to_hub()
    assert trainer.args.hub_token == WRITE, "only what is written goes without it"
    files = [path for path in (tmp_path / "net").rglob("*") if path.is_file()]
    assert {"training_args.bin", "run.json", "README.md"} <= {path.name for path in files}
    assert not [path for path in files if WRITE.encode() in path.read_bytes()]


@pytest.mark.parametrize("strategy", ["end", "checkpoint", "all_checkpoints"])
def test_strategies(strategy: str, client: HubServer, make: Any) -> None:
    trainer = make(hub_strategy=strategy)
    trainer.train()
    titles = [title for title, _ in revisions(client)]
    assert len(titles) == (0 if strategy == "end" else 2)
    repo = client.store.repos[NAME]
    assert list(repo.tags) == (["step-2", "step-4"] if strategy == "all_checkpoints" else [])
    for _, files in revisions(client):
        assert "pretraining/model.safetensors" in files and "modeling_ladder_pretraining.py" in files
        assert not [path for path in files if path.endswith((".bin", ".pt", ".pth")) or "checkpoint" in path]
    if strategy == "end":
        trainer.push_to_hub(include_pretraining=True, tag="v1", revision="trial")
        head = repo.resolve("trial")
        assert repo.tags == {"v1": head.oid} and "pretraining/model.safetensors" in head.files
        assert revisions(client) == []


def test_a_push_that_fails_costs_a_warning_and_not_the_training(
    client: HubServer, make: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = make()
    client.faults.append(Fault("echo", "POST", "/commit/", status=403, times=None))
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="huggingface_hub")
    trainer.train()
    assert trainer.state.global_step == 4 and revisions(client) == []
    warned = [record.getMessage() for record in caplog.records if "training goes on" in record.getMessage()]
    assert len(warned) == 2 and "may not write to user/net" in warned[0] and "Next: " in warned[0]
    with pytest.raises(UserError, match=r"may not write to user/net.*earlier revision.*Next: ") as caught:
        trainer.push_to_hub()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert WRITE not in caplog.text + "".join(capfd.readouterr()) + str(caught.value)
    client.clear()
    assert trainer.push_to_hub().changed and len(revisions(client)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hub_token": INVALID}, r"cannot be made.*does not accept the access token.*hf auth login"),
        ({"hub_token": READ}, r"may not write to user/net.*write access"),
        ({"hub_model_id": "user/open", "hub_private_repo": True}, r"user/open exists and is public"),
        ({"hub_model_id": "a/b/c"}, r"a/b/c cannot be made"),
    ],
)
def test_what_the_hub_refuses_shows_before_the_training(
    fields: dict[str, Any], message: str, client: HubServer, make: Any, tmp_path: Path
) -> None:
    client.store.create("user/open")
    with pytest.raises(UserError, match=message):
        make(**fields)
    assert set(client.store.repos) == {"user/open"} and not (tmp_path / "net").exists()


def test_the_name_may_come_from_the_folder_and_the_push_from_a_call(client: HubServer, make: Any) -> None:
    trainer = make(push_to_hub=False, hub_model_id=None, hub_private_repo=True)
    trainer.train()
    assert not client.log
    pushed = trainer.push_to_hub(blocking=False)
    assert isinstance(pushed, Future) and pushed.result(timeout=60).repo_id == NAME
    assert client.store.repos[NAME].private


def test_the_card_keeps_what_was_written_by_hand(make: Any, client: HubServer, tmp_path: Path) -> None:
    trainer = make(hub_strategy="end")
    trainer.train()
    trainer.create_model_card()
    path = tmp_path / "net" / "README.md"
    path.write_text(path.read_text().replace(f"{BEGIN}\n", f"{BEGIN}\nFor my thesis.\n"))
    trainer.push_to_hub(license="mit")
    card = revisions(client)[0][1]["README.md"]
    assert f"{BEGIN}\nFor my thesis.\n".encode() in card and metadata(card)["license"] == "mit"


def test_save_model_pushes_as_in_transformers(make: Any, client: HubServer, tmp_path: Path) -> None:
    trainer = make(hub_strategy="end")
    trainer.save_model()
    assert [title for title, _ in revisions(client)] == ["Model save"]
    assert not list((tmp_path / "net").rglob("training_args.bin")), (
        "the Trainer's pickle is no part of what is published"
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_save_model_leaves_the_folder_of_the_command(make: Any, tmp_path: Path, elsewhere: bool) -> None:
    """Native weights at the root, both networks in pretraining/, a record, a card; all equal to the trained model."""
    from transformers import AutoModel, ResNetBackbone

    trainer = make(push_to_hub=False, hub_model_id=None, save_strategy="no")
    trainer.train()
    folder = tmp_path / ("copy" if elsewhere else "net")
    trainer.save_model(str(folder) if elsewhere else None)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    trained = trainer.pretraining_model.eval()
    expected = list(trained.feature_maps(images).values())
    for got, wanted in zip(ResNetBackbone.from_pretrained(folder)(images).feature_maps, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    pooled = AutoModel.from_pretrained(folder)(images).pooler_output.flatten(1)
    torch.testing.assert_close(pooled, expected[-1].mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)
    complete = LadderSiameseForPreTraining.from_pretrained(folder / "pretraining")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in complete.state_dict().items())
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["steps"], record["images_seen"]) == ("finished", 4, 16)
    assert metadata((folder / "README.md").read_bytes())["library_name"] == "transformers"
    assert not list(folder.rglob("*.bin"))


def test_a_checkpoint_that_is_not_pushed_is_named(
    client: HubServer, make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that comes during the push of another was skipped silently, and a full disk ended the training."""
    trainer = make(hub_always_push=False)
    monkeypatch.setattr(type(trainer._pushes), "busy", "step 2")
    trainer.state.global_step = 4
    trainer._push_from_checkpoint("")
    monkeypatch.setattr(type(trainer._pushes), "busy", None)
    with full_disk():
        trainer._push_from_checkpoint("")
    assert [record.getMessage() for record in caplog.records] == [
        "step 4 is not pushed: the push of step 2 has not ended; hub_always_push true pushes every checkpoint",
        f"step 4 is not pushed: no copy of it can be written: {tmp_path / 'net' / '.partial-push-4'}: No space left on "
        "device; free space (or inodes: many small files) there",
    ]
    assert revisions(client) == [] and not list((tmp_path / "net").glob(".*"))


def test_an_interrupted_training_does_not_wait_for_attempts(
    client: HubServer, make: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(max_steps=100)
    client.faults.append(Fault("status", "POST", "/commit/", status=503, headers={"Retry-After": "600"}, times=None))
    trainer.add_callback(EndsAfter(2, trainer.stop_request))
    start = time.monotonic()
    with pytest.raises(Interrupted):
        trainer.train()
    assert time.monotonic() - start < 60
    assert "waiting for the push of step 2 to user/net ...\n" in capsys.readouterr().err
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1 and warned[0].startswith("step 2 is not pushed: push to user/net (main) failed: the Hub")
    assert warned[0].endswith("Next: run the same command again"), "training does not go on"


def test_two_processes_push_together(client: HubServer, make: Any) -> None:
    """The first one waited for others that had left, and failed after the training."""

    def work(rank: int) -> tuple[bool, bool]:
        trainer = make(hub_strategy="end")
        trainer.train()
        first = trainer.push_to_hub()
        trainer.accelerator.wait_for_everyone()
        later = trainer.push_to_hub(blocking=False)
        assert (later is None) == (rank == 1)
        return first.changed, rank == 1 or later.result(timeout=60).changed

    assert run_together(work, seconds=120) == [(True, False), (True, True)]
    assert len(revisions(client)) == 1
    client.faults.append(Fault("status", "GET", "/revision/", status=403, times=None))

    def refused(rank: int) -> tuple[str, bool]:
        trainer = make(hub_strategy="end")
        trainer.train()
        with pytest.raises(UserError) as caught:
            trainer.push_to_hub()
        return str(caught.value), caught.value.shared

    first, second = run_together(refused, seconds=120)
    assert first == second and "may not write to user/net" in first[0] and first[1]


def test_two_processes_are_refused_together(make: Any) -> None:
    def work(rank: int) -> tuple[str, bool]:
        with pytest.raises(UserError) as caught:
            make(hub_token=READ)
        return str(caught.value), caught.value.shared

    first, second = run_together(work)
    assert first == second and "may not write to user/net" in first[0] and first[1]
