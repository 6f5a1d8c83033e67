"""What a step costs, counted and not timed: Ladder over BYOL on a ResNet-50 at 224 pixels, in bfloat16 autocast.

    python benchmarks/counts.py [--batch 128] [--quick] [--json FILE]

Tensors have no values, so this runs anywhere in seconds and every run gives the same numbers. Operations are those that
torch dispatches in one forward and backward of a micro-batch; each that is not a view or an allocation counts as one
launch, and as bytes it moves its inputs and outputs once. What happens inside one operation is not seen. FLOPs are
those of torch's FlopCounterMode. Saved activations are the storages that autograd keeps for the backward, without
parameters. "a step" adds LARS and the target's update. Heads join both views, as on a GPU.
"""

from typing import Any

import torch
from report import Report, Table, parser_of
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ladder_training import Lars
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
from modeling_ladder.heads import LadderHead

ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


class Traffic(TorchDispatchMode):
    """Counts launches and the bytes that they read and write.

    Attributes:
        launches: Operations that are neither views nor allocations.
        bytes: Bytes of their inputs and outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        known = {storage_of(tensor) for tensor in inputs}
        made = [tensor for tensor in outputs if storage_of(tensor) not in known]
        changed = [
            tensor
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tree_leaves(value)
            if isinstance(tensor, Tensor)
        ]
        if (made or changed) and func._schema.name.removeprefix("aten::") not in ALLOCATIONS:
            self.launches += 1
            self.bytes += sum(size_of(tensor) for tensor in [*inputs, *made, *changed])
        return result


def storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's memory."""
    return int(tensor.untyped_storage()._cdata)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor; an expanded one is only as large as its memory."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def without_values(model: nn.Module) -> nn.Module:
    """Replace parameters and buffers by tensors that have a shape, a type and strides only."""
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    there = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                    own[name] = nn.Parameter(there, tensor.requires_grad) if name in module._parameters else there
    return model


def count(config: LadderSiameseConfig, batch: int, size: int) -> dict[str, float]:
    """Count one step of a network."""
    model = LadderSiameseForPreTraining(config).train()
    saved: dict[int, int] = {}
    with FakeTensorMode():
        without_values(model)
        weights = {storage_of(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        inputs = {
            "pixel_values": torch.empty(batch, 2, 3, size, size),
            "view_boxes": torch.empty(batch, 2, 4),
            "view_flips": torch.empty(batch, 2, dtype=torch.bool),
        }

        def keep(tensor: Tensor) -> Tensor:
            if storage_of(tensor) not in weights:
                saved[storage_of(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        flops = FlopCounterMode(display=False)
        with Traffic() as traffic, flops:
            with (
                torch.autocast("cpu", dtype=torch.bfloat16),
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            ):
                loss = model(**inputs).loss
            forward = traffic.launches
            loss.backward()
            backward, moved = traffic.launches - forward, traffic.bytes
            Lars(model.parameters(), lr=0.1, weight_decay=1e-6).step()
            model.update_target(0.99)
    return {
        "TFLOP": flops.get_total_flops() / 1e12,
        "GB moved": moved / 1e9,
        "GB a step": traffic.bytes / 1e9,
        "GB saved": sum(saved.values()) / 1e9,
        "forward": forward,
        "backward": backward,
        "launches": forward + backward,
    }


def counts(batch: int, size: int) -> Table:
    """Count BYOL and the Ladder, and divide."""
    found = {
        "BYOL": count(LadderSiameseConfig.byol(), batch, size),
        "Ladder": count(LadderSiameseConfig(), batch, size),
    }
    found["Ladder / BYOL"] = {name: value / found["BYOL"][name] for name, value in found["Ladder"].items()}
    form = dict.fromkeys(found["BYOL"], ".3f") | dict.fromkeys(("forward", "backward", "launches"), ".5g")
    return Table(f"one micro-batch of {batch} images, {size} pixels", form, found)


def main() -> None:
    """Count, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    if options.quick:
        options.batch = 8
    LadderHead.views = LadderHead._together
    report = Report("counts", options)
    report.add(counts(options.batch, options.size))
    report.finish()


if __name__ == "__main__":
    main()
