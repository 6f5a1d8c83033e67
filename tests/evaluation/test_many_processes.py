"""Evaluation on several processes ends with one network, on the device asked for, or is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from datasets import Dataset, Features, Image, Value

from helpers.models import tiny_native_backbone
from helpers.pictures import encode
from helpers.processes import run_together
from ladder_training.errors import UserError
from ladder_training.evaluation import detection, knn, linear, segmentation, semi_supervised, tuning
from ladder_training.evaluation.backbone import ImageSettings, StageFeatures, load_backbone
from ladder_training.evaluation.embedding.options import EmbedOptions
from ladder_training.evaluation.embedding.task import embed
from ladder_training.evaluation.features import FeaturePart, extract_part
from ladder_training.evaluation.image_transforms import CenterTransform
from ladder_training.evaluation.shared_features import gathered
from ladder_training.evaluation.tuning import TunedBackbone, agree_on_statistics, fine_tune, make_accelerator
from ladder_training.evaluation.untrained import untrained_copy
from ladder_training.runs.agreement import patient_group


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps its device for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def features(stages: list[str]) -> StageFeatures:
    return StageFeatures(tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"]), stages)


def tuned(rank: int, stages: list[str], batch_norm: str) -> dict[str, torch.Tensor]:
    """Three steps on images that differ between processes."""
    accelerator = make_accelerator("cpu")
    torch.manual_seed(0)
    network = tuning.shared_statistics(TunedBackbone(features(stages), batch_norm), batch_norm, accelerator)
    model, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.01))
    generator = torch.Generator().manual_seed(rank)
    batches = [torch.randn(4, 3, 64, 64, generator=generator) + rank for _ in range(3)]

    def loss_of(net: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([cells.square().mean() for cells in net(batch).values()]).sum()

    fine_tune(model, batches, loss_of, optimizer, lambda step: 1.0, accelerator)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("batch_norm", ["train", "sync", "frozen"])
def test_training_ends_with_one_network_in_all_processes(batch_norm) -> None:
    first, second = run_together(lambda rank: tuned(rank, ["stage1", "stage4"], batch_norm))
    start = features(["stage1", "stage4"]).state_dict()
    moved = [
        name
        for name in first
        if "running_mean" in name and not torch.equal(first[name], start[name.removeprefix("features.")])
    ]
    assert bool(moved) == (batch_norm != "frozen")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_stages_without_the_last_one_train_on_several_processes() -> None:
    """What they do not need is frozen; DDP would wait for its gradient."""
    first, second = run_together(lambda rank: tuned(rank, ["stage1", "stage2"], "train"))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    network = TunedBackbone(features(["stage1", "stage2"]), "train")
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(".stages.2." in name or ".stages.3." in name for name in frozen)
    assert not any(".stages.2." in n or ".stages.3." in n for n, p in network.named_parameters() if p.requires_grad)


def test_statistics_are_averaged_over_processes() -> None:
    def work(rank: int) -> tuple[float, float, int]:
        norm, frozen = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2).eval()
        for module in (norm, frozen):
            module.running_mean.fill_(1 + 2 * rank)
        agree_on_statistics(torch.nn.ModuleList([norm, frozen]), make_accelerator("cpu"))
        return norm.running_mean[0].item(), frozen.running_mean[0].item()

    assert run_together(work) == [(2, 1), (2, 3)]


def test_the_named_device_computes(fresh_accelerate) -> None:
    """ "meta" stands for a GPU that is not the first."""
    assert make_accelerator("cpu").device == torch.device("cpu")
    assert make_accelerator("cpu:0").device == torch.device("cpu:0")
    assert PartialState().device == torch.device("cpu:0")
    assert make_accelerator(None).device == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_processes_without_a_gpu_are_one_job_also_if_no_device_is_named(tmp_path, monkeypatch) -> None:
    """As `torchrun` starts them: each took itself for the only one, so that every image was counted twice."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backbone, data = tiny_native_backbone(), labelled(10, 0)

    def work(rank: int) -> tuple[int, dict[str, int]]:
        found = knn(backbone, data, test_dataset=data, batch_size=4, image_size=32, k=3)
        return make_accelerator(None).num_processes, found.count

    assert run_together(work) == [(2, {"fit": 10, "score": 10})] * 2


def test_every_process_has_its_untrained_network(tmp_path) -> None:
    """transformers lets only the first process of a job save a model: `ladder evaluate` failed on several."""
    tiny_native_backbone().save_pretrained(tmp_path)

    def work(rank: int) -> dict[str, torch.Tensor]:
        with untrained_copy(str(tmp_path), 0) as copy:
            return load_backbone(copy).state_dict()

    first, second = run_together(work)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_device_by_number_is_refused_with_several_processes(monkeypatch, fresh_accelerate) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="each of several processes takes a GPU of its own"):
        make_accelerator("cpu:0")


def labelled(count: int, seed: int) -> Dataset:
    """Noise of three kinds, in files; one of them is damaged."""
    generator = np.random.default_rng(seed)
    files = []
    for index in range(count):
        pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        pixels[..., index % 3] //= 3
        files.append({"bytes": encode(pixels) if index != 11 else b"no image", "path": None})
    columns = {"image": files, "label": [index % 3 for index in range(count)]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": Value("int64")}))


@pytest.mark.parametrize(
    ("task", "settings"),
    [(knn, {"k": 3}), (linear, {"epochs": 3, "learning_rates": [0.1, 1.0]}), (linear, {"label_fraction": 0.3})],
    ids=["knn", "linear", "linear on some labels"],
)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_images_and_get_the_result_of_one(tmp_path, task, settings, processes) -> None:
    """113 and 35 images in batches of 8: shares of different sizes, and a last batch of one process only."""
    torch.manual_seed(0)
    backbone, fit, score = tiny_native_backbone(), labelled(113, 0), labelled(35, 1)

    def work(rank: int, output: Path) -> tuple[dict, int]:
        decoded = []
        real = CenterTransform.__call__

        def counting(self, *given):
            decoded.append(given)
            return real(self, *given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CenterTransform, "__call__", counting)
            patch.setattr("ladder_training.evaluation.features.MAX_BAD_FRACTION", 0.05)
            found = task(
                backbone, fit, test_dataset=score, output=output, device="cpu", batch_size=8, image_size=32, **settings
            )
        facts = {**found.to_dict(), "seconds": 0, "date": ""}
        return facts, len(decoded)

    (alone, seen), *_ = run_together(lambda rank: work(rank, tmp_path / "one"), 1, group=False)
    assert seen == 148
    assert any("2 images could not be read" in note for note in alone["notes"])
    results = run_together(lambda rank: work(rank, tmp_path / "many"), processes)
    assert [facts for facts, _ in results] == [alone] * processes
    shares = [count for _, count in results]
    assert sum(shares) == 148
    assert max(shares) < 148 / processes + 2 * 8
    (file,) = (tmp_path / "many" / "evaluation").iterdir()
    assert json.loads(file.read_text())["metrics"] == alone["metrics"]


def test_an_error_in_the_first_process_is_raised_in_all(tmp_path) -> None:
    """More than 1 % of the images cannot be read; only the first process knows it."""
    backbone, fit, score = tiny_native_backbone(), labelled(24, 0), labelled(12, 1)

    def work(rank: int) -> None:
        knn(backbone, fit, test_dataset=score, output=tmp_path, device="cpu", batch_size=8, image_size=32)

    for found in run_together(work):
        assert isinstance(found, UserError)
        assert "1 of 24 images cannot be read" in str(found)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_data_is_told_by_the_first_process_only(tmp_path) -> None:
    backbone, score = tiny_native_backbone(), labelled(11, 1)
    tries = {
        "1 of 24 images cannot be read": (semi_supervised, labelled(24, 0), {"label_fraction": 1.0}),
        "is too small to hold out": (linear, labelled(3, 0), {"augment": True, "max_steps": 1, "train_batch_size": 4}),
        "is 1 image for each of 2": (linear, labelled(24, 0), {"augment": True, "max_steps": 1, "train_batch_size": 2}),
        "has no column 'objects'": (detection, labelled(3, 0), {}),
        "has no column of label maps": (segmentation, labelled(3, 0), {}),
        "no such data set": (knn, str(tmp_path / "nothing"), {}),
    }

    def work(rank: int) -> list[tuple[str, bool]]:
        found = []
        for task, fit, settings in tries.values():
            size = {} if task in (detection, segmentation) else {"image_size": 32, "num_workers": 0}
            with pytest.raises(UserError) as caught:
                task(backbone, fit, test_dataset=score, output=tmp_path, device="cpu", **size, **settings)
            found.append((str(caught.value), caught.value.shared))
        return found

    for found in run_together(work):
        assert all(expected in text for expected, (text, _) in zip(tries, found, strict=True)), found
        assert [shared for _, shared in found] == [True] * len(tries)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_embed_does_not_find_is_told_by_the_first_process_only(tmp_path) -> None:
    options = EmbedOptions(model="net", dataset=str(tmp_path / "nothing"), output=str(tmp_path / "out.parquet"))

    def work(rank: int) -> tuple[str, bool]:
        with pytest.raises(UserError) as caught:
            embed(options, tiny_native_backbone())
        return str(caught.value), caught.value.shared

    assert run_together(work) == [(f"{options.dataset}: no such data set", True)] * 2


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_gathered_features_are_those_of_one_process_to_the_bit(processes) -> None:
    """With five processes for four batches one has nothing."""
    backbone, data = StageFeatures(tiny_native_backbone().eval(), None), labelled(29, 2)
    words = {"image_column": "image", "label_column": "label", "split": "train", "device": "cpu"}

    def part(process: int, processes: int) -> FeaturePart:
        transform = CenterTransform(ImageSettings(32, 1.0, (0.5,) * 3, (0.2,) * 3))
        return extract_part(
            backbone, data, transform, batch_size=8, num_workers=0, process=process, processes=processes, **words
        )

    whole = part(0, 1)
    first, *others = run_together(lambda rank: gathered(part(rank, processes), patient_group()), processes)
    assert others == [None] * (processes - 1)
    assert (first.labels, first.bad) == (whole.labels, whole.bad)
    assert first.features.keys() == whole.features.keys()
    assert all(torch.equal(values, whole.features[name]) for name, values in first.features.items())


@pytest.mark.parametrize("task", [knn, linear])
def test_a_stream_is_refused_with_several_processes(tmp_path, task) -> None:
    data = labelled(9, 0).to_iterable_dataset()

    def work(rank: int) -> bool:
        with pytest.raises(UserError, match="a stream is read by one process here, but 2 were started") as caught:
            task(tiny_native_backbone(), data, test_dataset=data, output=tmp_path)
        return caught.value.shared

    assert run_together(work) == [True, True]
    assert list(tmp_path.iterdir()) == []
