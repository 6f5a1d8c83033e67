"""A plain BYOL step, written from the paper with torch's functions only, on the weights of a tiny ResNet.

It shares no code with the package. `mutant` makes one of the mistakes that BYOL implementations have made; a test
that cannot tell a mutant from the reference checks nothing.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


class Network:
    """Backbone, projector and (online only) predictor as functions of a dictionary of weights."""

    def __init__(self, weights: Weights, backbone: str, projector: str, predictor: str | None, training: bool) -> None:
        self.weights, self.training = weights, training
        self.backbone, self.projector, self.predictor = backbone, projector, predictor

    def norm(self, x: Tensor, name: str) -> Tensor:
        w = self.weights
        return F.batch_norm(
            x,
            w[f"{name}.running_mean"],
            w[f"{name}.running_var"],
            w[f"{name}.weight"],
            w[f"{name}.bias"],
            training=self.training,
        )

    def conv(self, x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        x = F.conv2d(x, self.weights[f"{name}.convolution.weight"], stride=stride, padding=padding)
        return self.norm(x, f"{name}.normalization")

    def features(self, x: Tensor) -> list[Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.conv(x, f"{self.backbone}.embedder.embedder", 2, 3))
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage in range(4):
            name, stride = f"{self.backbone}.encoder.stages.{stage}.layers.0", 1 if stage == 0 else 2
            short = x
            if f"{name}.shortcut.convolution.weight" in self.weights:
                short = None
            y = F.relu(self.conv(x, f"{name}.layer.0", stride, 1))
            y = self.conv(y, f"{name}.layer.1", 1, 1)
            if short is None:
                short = self.conv(x, f"{name}.shortcut", stride, 0)
            x = F.relu(y + short)
            maps.append(x)
        return maps

    def head(self, x: Tensor, name: str) -> Tensor:
        w = self.weights
        x = F.linear(x, w[f"{name}.hidden.weight"], w[f"{name}.hidden.bias"])
        return F.linear(F.relu(self.norm(x, f"{name}.normalization")), w[f"{name}.output.weight"])

    def project(self, view: Tensor) -> Tensor:
        return self.head(self.features(view)[-1].mean(dim=(2, 3)), self.projector)


def clone_weights(model: torch.nn.Module) -> Weights:
    """Detached copies of all tensors of a model; the online ones ask for gradients."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and "running" not in name and not name.startswith("target."):
            tensor.requires_grad_(True)
    return weights


def byol_loss(weights: Weights, views: Tensor, mutant: str | None = None) -> Tensor:
    """Loss of one BYOL step on `views` (batch, 2, 3, height, width).

    Mutants: "averaged" directions, "uncrossed" views, "concatenated" views, "target in eval mode".
    """
    heads = "stage4.global"
    online = Network(weights, "backbone", f"projectors.{heads}", f"predictors.{heads}", training=True)
    in_train = mutant != "target in eval mode"
    target = Network(weights, "target.backbone", f"target.projectors.{heads}", None, training=in_train)
    first, second = views[:, 0], views[:, 1]
    if mutant == "concatenated":
        both = torch.cat([first, second])
        q1, q2 = online.head(online.project(both), online.predictor).chunk(2)
        with torch.no_grad():
            z1, z2 = target.project(both).chunk(2)
    else:
        h1, h2 = online.project(first), online.project(second)
        with torch.no_grad():
            z1, z2 = target.project(first), target.project(second)
        q1, q2 = online.head(h1, online.predictor), online.head(h2, online.predictor)
    if mutant == "uncrossed":
        z1, z2 = z2, z1

    def distance(q: Tensor, z: Tensor) -> Tensor:
        return (2 - 2 * (F.normalize(q, dim=-1) * F.normalize(z, dim=-1)).sum(dim=-1)).mean()

    loss = distance(q1, z2) + distance(q2, z1)
    return loss / 2 if mutant == "averaged" else loss
