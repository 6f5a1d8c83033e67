"""Batches go to a GPU on a stream of their own, without waiting; chunks of workers lie in pinned memory."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from helpers.fake_gpu import fake_gpu, needs_fake_cuda
from helpers.models import tiny_resnet
from helpers.processes import run_apart
from helpers.training import make_arguments, make_model
from helpers.view_dataset import ViewPairs
from ladder_training.loading import workers
from ladder_training.loading.chunks import Chunk
from ladder_training.loading.loader import ViewLoader
from ladder_training.trainer.input_copies import InputCopies
from ladder_training.trainer.trainer import LadderTrainer


class Stream:
    """Stands for a CUDA stream; writes down what it is asked for."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def wait_stream(self, other: "Stream") -> None:
        self.events.append(f"{self.name} waits for {other.name}")


@needs_fake_cuda
def test_a_copy_neither_waits_for_the_computation_nor_is_waited_for_by_the_host(monkeypatch) -> None:
    def work() -> list[str]:
        events: list[str] = []
        computing, copying = Stream("step", events), Stream("copy", events)

        @contextmanager
        def stream(chosen: Stream) -> Any:
            events.append(f"on {chosen.name}")
            yield
            events.append(f"off {chosen.name}")

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if "_to_copy" in str(func):
                    events.append("copy, host waits" if not kwargs.get("non_blocking") else "copy")
                return func(*args, **(kwargs or {}))

        monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, used: events.append(f"kept for {used.name}"))
        with fake_gpu(), Watch():
            copies = InputCopies(torch.device("cuda"))
            batch = copies({"pixel_values": torch.empty(2, 3), "view_boxes": torch.empty(2, 4)})
            assert {value.device.type for value in batch.values()} == {"cuda"}
        return events

    assert run_apart(work) == [
        *("on copy", "copy", "copy", "off copy"),
        *("step waits for copy", "kept for step", "kept for step"),
    ]


def test_a_chunk_is_pinned_as_a_whole(monkeypatch) -> None:
    """As torch's pinning thread does it, which knows no classes but calls `pin_memory`."""
    pinned: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: (pinned.append(tensor.shape), tensor + 1)[1])
    chunk = Chunk({"pixel_values": torch.zeros(2, 3), "view_flips": torch.zeros(2)}, [0, 2], 3, [], pass_index=4)
    moved = torch.utils.data._utils.pin_memory.pin_memory(chunk)
    assert pinned == [(2, 3), (2,)]
    assert (moved.offsets, moved.length, moved.pass_index) == ([0, 2], 3, 4)
    assert all(value.eq(1).all() for value in moved.tensors.values())


@pytest.mark.parametrize("wanted", [True, False])
def test_the_loader_asks_its_workers_for_pinned_memory(monkeypatch, wanted) -> None:
    asked = []

    class Loader:
        def __init__(self, dataset, **options):
            asked.append(options["pin_memory"])

        def __iter__(self):
            return iter([])

    monkeypatch.setattr(workers, "DataLoader", Loader)
    loader = iter(ViewLoader(ViewPairs(8), batch_size=4, num_workers=2, pin_memory=wanted))
    with pytest.raises(RuntimeError):  # the generator has nothing to give
        next(loader)
    assert asked == [wanted, wanted]


def test_on_a_processor_nothing_is_pinned_and_the_trainer_copies_as_transformers_does(tmp_path) -> None:
    trainer = LadderTrainer(make_model(tiny_resnet()), make_arguments(tmp_path, max_steps=1), ViewPairs(8))
    trainer.args.dataloader_pin_memory = True
    assert not trainer.get_train_dataloader()._batches._pin_memory
    trainer.train()
    assert trainer._input_copies is None
