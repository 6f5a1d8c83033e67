"""Batch norm is torch's own to the bit; over several processes it is that of the joined batch, and no host waits."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from helpers.fake_gpu import OperationCount, fake_gpu, fake_group, needs_fake_cuda, views_without_values, without_values
from helpers.models import tiny_resnet
from helpers.processes import run_apart, run_together
from helpers.training import make_model
from modeling_ladder.batch_norm import LadderBatchNorm, convert_batch_norms


def plain_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.BatchNorm1d(5)
    )
    with torch.no_grad():
        for norm in (network[1], network[5]):
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    return network.to(memory_format=torch.channels_last)


def step(network: nn.Module, images: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Output, gradients and state after one training step's forward and backward."""
    network.zero_grad()
    images = images.clone().requires_grad_()
    output = network.train()(images)
    (output * weight).sum().backward()
    gradients = {f"gradient {name}": p.grad.clone() for name, p in network.named_parameters()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    return {"output": output.detach(), "images": images.grad, **gradients, **state}


@pytest.mark.parametrize("training", [True, False])
def test_one_process_computes_what_torch_computes_to_the_bit(training) -> None:
    plain = plain_network().train(training)
    ours = convert_batch_norms(copy.deepcopy(plain))
    assert [type(module) for module in ours.modules()].count(LadderBatchNorm) == 2
    images = torch.randn(8, 3, 8, 8)
    for _ in range(2):
        assert torch.equal(ours(images), plain(images))
    state = ours.state_dict()
    assert state.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert state[name] == 0, "nothing reads the counter, so nothing adds to it"
        else:
            assert torch.equal(state[name], value), name
    plain.load_state_dict(state)
    ours.load_state_dict(plain.state_dict())


def test_parameters_stay_the_same_objects_and_other_norms_are_left_alone() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.GroupNorm(2, 4))
    network.append(nn.BatchNorm2d(4, momentum=None, eps=1e-3))
    weight = network[2].weight
    images = torch.randn(6, 4, 3, 3)
    expected = copy.deepcopy(network)(images)
    converted = convert_batch_norms(network)
    assert converted is network and network[2].weight is weight
    assert isinstance(network[1], nn.GroupNorm)
    assert torch.equal(network(images), expected)
    assert network[2].num_batches_tracked == 1, "an average over all batches needs their count"
    norm = convert_batch_norms(nn.BatchNorm1d(3), synchronised=True)
    assert isinstance(norm, LadderBatchNorm) and norm.synchronised


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_are_one_with_the_joined_batch(count) -> None:
    torch.manual_seed(1)
    images, weight = torch.randn(4 * count, 3, 8, 8).double(), torch.randn(4 * count, 5).double()
    joined = step(convert_batch_norms(plain_network().double()), images, weight)

    def work(rank: int) -> dict[str, Tensor]:
        mine = slice(4 * rank, 4 * rank + 4)
        network = convert_batch_norms(plain_network().double(), synchronised=True)
        return step(network, images[mine], weight[mine])

    ranks = run_together(work, count)
    close = {"rtol": 1e-9, "atol": 1e-10}
    for name, value in joined.items():
        if name in ("output", "images"):
            torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), value, **close)
        elif name.startswith("gradient"):
            torch.testing.assert_close(sum(rank[name] for rank in ranks), value, **close)
        else:
            for rank in ranks:
                torch.testing.assert_close(rank[name], value, **close)
                assert torch.equal(rank[name], ranks[0][name]), name


def test_batches_of_different_sizes_count_by_their_images() -> None:
    torch.manual_seed(1)
    values = torch.randn(9, 3, 2, 2, dtype=torch.float64)
    expected = nn.BatchNorm2d(3, dtype=torch.float64)(values)

    def work(rank: int) -> Tensor:
        norm = convert_batch_norms(nn.BatchNorm2d(3, dtype=torch.float64), synchronised=True)
        return norm(values[:2] if rank == 0 else values[2:]).detach()

    torch.testing.assert_close(torch.cat(run_together(work)), expected)


def test_without_other_processes_or_in_eval_mode_nothing_is_exchanged() -> None:
    def work(rank: int) -> bool:
        torch.manual_seed(0)
        norm = convert_batch_norms(nn.BatchNorm2d(3), synchronised=True).eval()
        if rank == 1:
            return True  # process 0 would wait for ever
        return torch.equal(norm(torch.ones(2, 3, 4, 4)), nn.BatchNorm2d(3).eval()(torch.ones(2, 3, 4, 4)))

    assert run_together(work) == [True, True]
    torch.manual_seed(0)
    images = torch.randn(4, 3, 5, 5)
    alone = convert_batch_norms(nn.BatchNorm2d(3), synchronised=True)
    assert torch.equal(alone(images), nn.BatchNorm2d(3)(images))


@needs_fake_cuda
def test_eight_gpus_exchange_once_per_norm_and_no_host_waits() -> None:
    """A read of a value, a boolean mask or a tensor on another device would raise an error here."""
    model = convert_batch_norms(make_model(tiny_resnet()).train(), synchronised=True)
    names = [name for name, module in model.named_modules() if isinstance(module, LadderBatchNorm)]
    norms, online = len(names), len([name for name in names if not name.startswith("target.")])

    def forward_on_gpu() -> dict[str, int]:
        with fake_group(8), fake_gpu(torch.bfloat16), OperationCount() as counted:
            without_values(model)(**views_without_values())
        return counted.counts

    def step_without_values() -> dict[str, int]:
        with fake_group(8), OperationCount() as counted:
            without_values(model, "meta")(**views_without_values(device="meta")).loss.backward()
        return counted.counts

    forward, both = run_apart(forward_on_gpu), run_apart(step_without_values)
    for counts in (forward, both):
        assert counts["c10d._allgather_base_"] == 2 * norms  # two views
        assert not counts.keys() & {"aten.index", "aten.nonzero", "aten._local_scalar_dense", "aten.item"}
    assert both["c10d.allreduce_"] == 2 * online == both["aten.batch_norm_backward_elemt"]


@needs_fake_cuda
def test_the_fake_gpu_notices_a_read_and_a_second_device() -> None:
    def work() -> None:
        with fake_gpu():
            values = torch.empty(3, device="cuda")
            with pytest.raises(DataDependentOutputException):
                values.sum().item()
            with pytest.raises(DynamicOutputShapeException):
                values[values > 0]
            with pytest.raises(RuntimeError, match="device"):
                values + torch.empty(3)

    run_apart(work)


@pytest.mark.slow
def test_a_step_with_synchronised_batch_norm_compiles_to_one_graph(view_pairs) -> None:
    from torch._dynamo.testing import CompileCounter

    batch = view_pairs()

    def work() -> tuple[int, int]:
        graphs = []
        for autocast in (False, True):
            torch._dynamo.reset()
            counter = CompileCounter()
            model = convert_batch_norms(make_model(tiny_resnet()).train(), synchronised=True)
            with fake_group(8), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                torch.compile(model, backend=counter)(**batch).loss.backward()
            graphs.append(counter.frame_count)
        return graphs[0], graphs[1]

    assert run_apart(work, seconds=200) == (1, 1)
