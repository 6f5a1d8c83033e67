"""The untrained network of a model's architecture, which every result is compared with."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from modeling_ladder.conversion import stage_names

from ..models.processor import processor_of
from .backbone import load_backbone


def write_untrained(model: str, seed: int, folder: Path) -> None:
    """Write a network with the model's architecture, image settings and random weights.

    Args:
        model: Folder or Hub name.
        seed: Of the weights; the caller's random state stays as it is.
        folder: Gets the network and its image processor.
    """
    backbone: Any = load_backbone(model).backbone
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    config.out_features = stage_names(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = type(backbone)(config)
    # transformers 5.24 lets only the first process of a job write, but here each one has a folder of its own.
    network.should_save_on_this_rank = bool
    network.save_pretrained(folder)
    processor_of(model).save_pretrained(folder)


@contextlib.contextmanager
def untrained_copy(model: str, seed: int) -> Iterator[str]:
    """Write a network as `write_untrained` does, to a temporary folder.

    Args:
        model: Folder or Hub name.
        seed: Of the weights.

    Yields:
        The folder, which is deleted at the end.
    """
    with tempfile.TemporaryDirectory(prefix="ladder-untrained-") as name:
        folder = Path(name) / "untrained"
        write_untrained(model, seed, folder)
        yield str(folder)
