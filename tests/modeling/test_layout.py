"""The memory layout of a model is chosen once."""

import torch

from helpers.models import tiny_resnet
from modeling_ladder import LadderSiameseConfig, LadderSiameseModel


def test_a_forward_does_not_walk_the_modules_to_know_its_layout(monkeypatch) -> None:
    """Whether the backbone is convolutional is found once: a walk at each forward costs milliseconds of host time."""
    model = LadderSiameseModel(LadderSiameseConfig(backbone_config=tiny_resnet())).eval()
    pixels = torch.randn(2, 3, 32, 32)
    model(pixels)
    walked = []
    plain = torch.nn.Module.named_modules

    def noticed(self, *arguments, **keywords):
        walked.append(type(self).__name__)
        return plain(self, *arguments, **keywords)

    monkeypatch.setattr(torch.nn.Module, "named_modules", noticed)
    model(pixels)
    few = len(walked)  # transformers looks at the first parameter
    assert few < len(list(model.modules())) / 4
    del model.__dict__["is_convolutional"]
    assert model.is_convolutional
    assert len(walked) > 2 * few, "the walk is made by named_modules(), so the test would notice it"
