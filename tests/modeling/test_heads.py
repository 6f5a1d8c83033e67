"""Two views through one head: joined on a GPU, one after the other on a processor, with one result."""

import copy

import pytest
import torch
from torch import Tensor

from helpers.models import tiny_resnet
from helpers.training import make_model
from modeling_ladder.heads import LadderHead, PointLinear


def trained(head: LadderHead, views: list[Tensor], joined: bool) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics of a head after one step's forward and backward."""
    head, views = copy.deepcopy(head), [view.clone().requires_grad_() for view in views]
    outputs = head._together(views) if joined else [head(view) for view in views]
    sum((output * (number + 1)).square().sum() for number, output in enumerate(outputs)).backward()
    found = {f"output {number}": output.detach() for number, output in enumerate(outputs)}
    found |= {f"input {number}": view.grad for number, view in enumerate(views)}
    return found | {f"gradient {name}": p.grad for name, p in head.named_parameters()} | dict(head.named_buffers())


@pytest.mark.parametrize("shape", [(6, 12), (4, 9, 12)])
@pytest.mark.parametrize("training", [True, False])
def test_joined_views_give_the_same_result(shape, training) -> None:
    """The views differ in scale, so statistics of both together, or in the other order, would be others."""
    torch.manual_seed(0)
    head = LadderHead(12, 20, 8).double().train(training)
    views = [torch.randn(shape).double(), 5 * torch.randn(shape).double() + 2]
    apart, together = trained(head, views, joined=False), trained(head, views, joined=True)
    assert apart.keys() == together.keys()
    for name, value in apart.items():
        assert together[name].shape == value.shape
        torch.testing.assert_close(together[name], value, rtol=1e-10, atol=1e-10, msg=name)
    swapped = trained(head, views[::-1], joined=True)
    if training:
        assert not torch.allclose(swapped["normalization.running_mean"], apart["normalization.running_mean"])


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "convolved"),
    [((32, 16, 24), True), ((16, 14, 24), True), ((512, 24), False), ((15, 16, 24), False), ((32, 4, 24), False)],
)
def test_points_are_mapped_by_a_convolution_with_the_result_of_the_matrix_product(shape, convolved, bias) -> None:
    """Single vectors, a BYOL network's only input, keep the order of additions of torch's own linear layer."""
    torch.manual_seed(0)
    layer, vectors, slope = PointLinear(24, 40, bias=bias), torch.randn(shape), torch.randn(*shape[:-1], 40)
    plain = torch.nn.Linear(24, 40, bias=bias)
    plain.load_state_dict(layer.state_dict())
    found = []
    for one in (layer, plain):
        own = vectors.clone().requires_grad_()
        with Operations() as operations:
            result = one(own)
            (result * slope).sum().backward()
        assert any("convolution" in name for name in operations.names) == (convolved and one is layer)
        found.append({"output": result.detach(), "input": own.grad} | {n: p.grad for n, p in one.named_parameters()})
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=2e-5)
    if not convolved:
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


@pytest.mark.parametrize("change", ["double", "autocast", "meta"])
def test_only_float32_on_a_processor_is_convolved(change) -> None:
    layer, vectors = PointLinear(24, 40), torch.randn(32, 16, 24)
    if change == "double":
        layer, vectors = layer.double(), vectors.double()
    if change == "meta":
        layer, vectors = layer.to("meta"), vectors.to("meta")
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"), Operations() as operations:
        layer(vectors)
    assert not any("convolution" in name for name in operations.names)


def test_on_a_processor_views_are_not_joined() -> None:
    """There a step stays that of the BYOL reference, to the bit."""
    torch.manual_seed(0)
    head, views = LadderHead(12, 20, 8), [torch.randn(6, 12), torch.randn(6, 12)]
    first = copy.deepcopy(head)
    assert all(torch.equal(found, first(view)) for found, view in zip(head.views(views), views, strict=True))


def test_a_whole_step_with_joined_views_is_that_without(view_pairs, monkeypatch) -> None:
    batch = view_pairs(batch=6, size=64)
    losses, gradients = [], []
    for joined in (False, True):
        with monkeypatch.context() as patch:
            if joined:
                patch.setattr(LadderHead, "views", LadderHead._together)
            model = make_model(tiny_resnet(), level_losses=["both", "local", "global", "both"]).train()
            output = model(**batch)
            output.loss.backward()
        losses.append({"total": output.loss, **output.level_losses, **output.projection_std})
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def casts(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[int, Tensor]:
    """Number of casts of the target's weights in one forward, and its loss."""
    shapes = {weight.shape for weight in model.target.parameters() if weight.ndim > 1}

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        made = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "_to_copy" in str(func) and args[0].shape in shapes:
                Count.made += 1
            return func(*args, **(kwargs or {}))

    with Count(), torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    return Count.made, loss


def test_autocast_casts_each_weight_of_the_target_once_with_the_same_result(view_pairs, monkeypatch) -> None:
    batch = view_pairs(batch=6, size=64)
    model = make_model(tiny_resnet()).train()
    state = copy.deepcopy(model.state_dict())
    many = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in model.target.modules())
    few, loss = casts(model, batch)
    assert all(p.dtype == torch.float32 for p in model.target.parameters())
    model.load_state_dict(state)
    monkeypatch.setattr(type(model.target), "run", lambda network, work: work(network))
    before, expected = casts(model, batch)
    assert torch.equal(loss, expected)
    assert before - few == 2 * many, "each was cast for both views; now all are copied in one operation"
