"""LARS against a plain re-statement of the BYOL reference's update, and against torch's SGD where they must agree."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from helpers.fake_gpu import OperationCount, fake_gpu
from helpers.processes import run_apart
from ladder_training.trainer.lars import Lars, portions, spread, trust_ratios


def reference_step(p, g, buffer, lr, momentum, decay, eta):
    """deepmind-research/byol, optimizers.py, one parameter in float64: decay, adaptation, momentum, learning rate."""
    if p.ndim > 1:
        g = g + decay * p
        p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(g)
        if p_norm > 0 and g_norm > 0:
            g = g * eta * p_norm / g_norm
    buffer = momentum * buffer + g
    return p - lr * buffer, buffer


@pytest.mark.parametrize("flat", [True, False], ids=["flat list", "groups"])
def test_five_steps_equal_the_reference(flat) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    params = list(model.parameters())
    groups = params if flat else [{"params": params[:2], "weight_decay": 0.1}, {"params": params[2:]}]
    optimizer = Lars(groups, lr=0.3, momentum=0.9, weight_decay=0.1, eta=0.02)
    state = [(p.detach().double().numpy(), np.zeros(p.shape)) for p in params]
    # The rate changes, as on a schedule: it must multiply the running update and not enter it.
    for rate in (0.3, 0.3, 0.1, 0.02, 0.2):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for p in params:
            p.grad = torch.randn_like(p)
        state = [
            reference_step(p, param.grad.double().numpy(), buffer, rate, 0.9, 0.1, 0.02)
            for param, (p, buffer) in zip(params, state, strict=True)
        ]
        optimizer.step()
        for param, (expected, _) in zip(params, state, strict=True):
            np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_biases_and_norms_follow_plain_sgd_without_decay() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(7)
    twin = copy.deepcopy(norm)
    lars = Lars(norm.parameters(), lr=0.2, momentum=0.9, weight_decay=0.5)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.2, momentum=0.9, weight_decay=0.0)
    for _ in range(3):
        for p, q in zip(norm.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        lars.step()
        sgd.step()
    for p, q in zip(norm.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_zero_weights_and_zero_gradients_do_not_divide_by_zero() -> None:
    weights = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))]
    weights[0].grad, weights[1].grad = torch.ones(2, 2), torch.zeros(2, 2)
    assert trust_ratios(weights, [w.grad for w in weights], 0.1).tolist() == [1, 1]
    Lars(weights, lr=0.5).step()
    assert torch.equal(weights[0], torch.full((2, 2), -0.5))
    assert torch.equal(weights[1], torch.ones(2, 2))


def test_parameters_without_gradient_stay_and_have_no_state() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([weight], lr=1.0, weight_decay=1.0)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))
    assert not optimizer.state


def test_state_round_trip_is_exact() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    one = Lars(first.parameters(), lr=0.1)
    for p in first.parameters():
        p.grad = torch.randn_like(p)
    one.step()
    second.load_state_dict(first.state_dict())
    other = Lars(second.parameters(), lr=0.7, momentum=0.1)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        q.grad = p.grad.clone()
    one.step()
    other.step()
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


def weights_and_gradients(count: int = 6) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Kernels in both memory formats, matrices, and a factor of each."""
    torch.manual_seed(3)
    shapes = [(8, 4, 3, 3), (5, 7), (16, 3, 7, 7), (4, 4, 1, 1), (2, 3), (1, 1)]
    weights = [torch.randn(shapes[number % 6]) for number in range(count)]
    weights[2] = weights[2].to(memory_format=torch.channels_last)
    return weights, [torch.randn_like(weight) for weight in weights]


def test_spread_ratios_scale_to_the_bit_as_one_by_one() -> None:
    weights, gradients = weights_and_gradients()
    ratios = trust_ratios(weights, gradients, 1e-3)
    assert len(ratios.unique()) == 6
    shaped = spread(ratios, gradients)
    assert [part.stride() for part in shaped] == [gradient.stride() for gradient in gradients]
    expected = [gradient * ratio for gradient, ratio in zip(gradients, ratios, strict=True)]
    for found, wanted in zip(torch._foreach_mul(gradients, shaped), expected, strict=True):
        assert torch.equal(found, wanted)


class Watch(OperationCount):
    """Also notes joint operations whose pairs differ: on a GPU each pair would be a launch of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.slow: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        lists = [value for value in args if isinstance(value, (list, tuple)) and isinstance(value[0], torch.Tensor)]
        for other in lists[1:]:
            pairs = zip(lists[0], other, strict=True)
            same = all(
                (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device) for a, b in pairs
            )
            if "foreach" in str(func) and not same:
                self.slow.append(str(func))
        return super().__torch_dispatch__(func, types, args, kwargs)


NO_LAUNCH = {"expand", "as_strided", "split_with_sizes", "unbind", "detach", "device"}


@pytest.mark.parametrize("decay", [0.0, 1e-6])
def test_on_a_gpu_a_step_is_the_same_few_launches_for_any_number_of_weights(decay) -> None:
    def step(count: int) -> tuple[dict[str, int], list[str]]:
        weights, _ = weights_and_gradients(count)
        with fake_gpu(), Watch() as watch:
            params = []
            for weight in [*weights, torch.ones(5)]:
                there = torch.empty_strided(weight.shape, weight.stride(), device="cuda")
                params.append(nn.Parameter(there))
                params[-1].grad = torch.empty_like(there)
            optimizer = Lars(params, lr=0.1, weight_decay=decay)
            optimizer.step()  # makes the momentum
            watch.counts.clear()
            optimizer.step()
        return watch.counts, watch.slow

    (few, slow), (many, _) = run_apart(lambda: step(6)), run_apart(lambda: step(60))
    assert slow == []
    launches = [
        {name: number for name, number in counts.items() if name.split(".")[1] not in NO_LAUNCH}
        for counts in (few, many)
    ]
    assert launches[0] == launches[1]
    assert sum(launches[0].values()) < 25


def test_closure_and_wrong_values() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    for name in ("lr", "momentum", "weight_decay", "eta"):
        with pytest.raises(ValueError, match=name):
            Lars([weight], **{"lr": 0.1, name: -1})


def test_portions_hold_every_parameter_once_and_fit_the_caches() -> None:
    params = [torch.empty(size) for size in (10, 2**17, 2**17, 5, 2**20, 3, 2**18)]
    made = portions(params)
    assert [id(param) for portion in made for param in portion] == [id(param) for param in params]
    assert [len(portion) for portion in made] == [2, 2, 1, 1, 1]
    assert all(len(portion) == 1 or sum(map(torch.numel, portion)) <= 2**18 for portion in made)
    assert portions([]) == []
