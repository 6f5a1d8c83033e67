"""What a loss after every layer changes in deep linear Siamese networks: predicted, and measured in simulated ones.

    python benchmarks/study/theory.py

Prints what is predicted and measured, writes docs/study/theory.json and docs/study/theory.png. docs/theory.md derives
the predictions. Networks are trained by gradient descent on the loss itself (deep_linear.py).
Cost: about three minutes of one core.
"""

import argparse
import itertools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from deep_linear import (
    LinearNetwork,
    Setting,
    collapse_threshold,
    escape_time,
    every,
    growth_rate,
    only,
    scalar_escape,
    scalar_survivors,
    stability_edge,
    target_share,
)
from gradient_noise import measured_falls, measured_share, predicted_fall, predicted_share
from torch import Tensor

SIGNAL, NOISE = 1.0, 0.25
PREDICTOR = 0.4  # half of signal / (signal + noise): where a mode grows fastest
LAYER = 0.5
DECAY = 0.008
SCAN = torch.linspace(0.8, 1.2, 41, dtype=torch.float64)  # modes of one network, around what is predicted
NEAR = torch.linspace(0.94, 1.06, 41, dtype=torch.float64)
SURVIVAL_STEPS = 5000
OUTPUT = Path(__file__).parents[2] / "docs" / "study"


@dataclass(frozen=True)
class Row:
    """One case: what was asked, of which network, and both answers."""

    question: str
    losses: str
    depth: int
    target: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def losses_of(depth: int) -> dict[str, tuple[float, ...]]:
    """Weights of the three networks that are compared."""
    return {"first": only(1, depth), "last": only(depth, depth), "every": every(depth)}


def target_name(momentum: float) -> str:
    """The target network in words."""
    return {0.0: "online", 1.0: "fixed"}.get(momentum, f"EMA {momentum:g}")


def same(depth: int, values: Tensor | float, modes: int = 1) -> Tensor:
    """The same strengths in every layer, (depth, modes)."""
    row = values if isinstance(values, Tensor) else torch.full((modes,), values, dtype=torch.float64)
    return row.double().repeat(depth, 1)


def growth(losses: str, depth: int, momentum: float) -> Row:
    """Rate at which a mode of the first layer leaves a small start, while it grows by half."""
    setting = Setting(losses_of(depth)[losses], rate=0.1, decay=1e-4, momentum=momentum)
    case = (setting, LAYER, PREDICTOR, SIGNAL, NOISE)
    predicted = growth_rate(*case)
    layers = same(depth, LAYER)
    layers[0] = 0.01
    network = network_of(setting, layers, same(depth, PREDICTOR))
    network.target[0] = network.target[0] * target_share(*case)
    steps = max(1, round(math.log(1.5) / predicted / setting.rate))
    run(network, steps)
    measured = math.log(network.layer_strengths()[0].item() / 0.01) / (steps * setting.rate)
    return Row("growth rate of the first layer", losses, depth, target_name(momentum), predicted, measured)


def growing(momentum: float) -> Row:
    """Most noise in which a mode grows at all with the first layer's own loss: the same for every target."""
    predicted = SIGNAL / PREDICTOR - SIGNAL  # p signal = p^2 (signal + noise)
    noises = predicted * SCAN
    network = network_of(
        Setting(only(1, 2), rate=0.1, momentum=momentum),
        same(2, 1e-3, len(SCAN)),
        same(2, PREDICTOR, len(SCAN)),
        noise=noises,
    )
    run(network, 300)
    before = network.layer_strengths()[0]
    run(network, 100)
    shrinks = network.layer_strengths()[0] < before
    found = boundary(noises, shrinks)
    return Row("most noise in which a mode grows", "first", 2, target_name(momentum), predicted, found)


def escape(losses: str, depth: int, start: float = 0.4, end: float = 0.6) -> Row:
    """Time from `start` to `end` of the first layer (its own loss) or of the product of all layers."""
    weights = losses_of(depth)[losses]
    if losses == "every":
        predicted = scalar_escape(Setting(weights, rate=0.0), start, end, PREDICTOR, SIGNAL, NOISE)
    else:
        below = 1 if losses == "first" else depth
        predicted = escape_time(below, start, end, PREDICTOR, SIGNAL, NOISE)
    setting = Setting(weights, rate=min(0.1, predicted / 200))
    network = network_of(setting, same(depth, start), same(depth, PREDICTOR))
    reached = (1, end) if losses == "first" else (depth, end**depth)
    steps = 0
    while network.layer_strengths()[: reached[0]].prod().item() < reached[1]:
        run(network, 1)
        steps += 1
    return Row("time to escape", losses, depth, "online", predicted, steps * setting.rate)


def threshold(losses: str, depth: int) -> Row:
    """Smallest start, the same in all layers and predictors, from which the first layer does not collapse.

    The modes of one network start at different strengths.
    """
    predicted, _ = collapse_threshold(depth if losses == "last" else 1, DECAY, SIGNAL, NOISE)
    starts, network = scanned_starts(losses, depth, predicted)
    alive = network.layer_strengths()[0] > starts
    return Row("smallest start, first layer alive", losses, depth, "online", predicted, boundary(starts, alive))


def learned(losses: str, depth: int) -> Row:
    """Strength of the first layer where training ends: the larger root, or by the predictors of every level."""
    setting = Setting(losses_of(depth)[losses], rate=0.25, decay=DECAY)
    network = network_of(setting, same(depth, 0.7), same(depth, 0.7))
    run(network, 4000)
    predicted = collapse_threshold(depth, DECAY, SIGNAL, NOISE)[1]
    if losses == "every":
        predicted = network.predictor_strengths().square().sum().sqrt().item()
    measured = network.layer_strengths()[0].item()
    return Row("first layer at the fixed point", losses, depth, "online", predicted, measured)


def threshold_of_all(losses: str, depth: int) -> Row:
    """Smallest start from which the product of all layers does not collapse; predicted by the scalar equations."""
    starts = torch.linspace(0.002, 0.6, 1200, dtype=torch.float64)
    setting = Setting(losses_of(depth)[losses], rate=0.25, decay=DECAY)
    alive = torch.from_numpy(scalar_survivors(setting, starts.numpy(), SIGNAL, NOISE, SURVIVAL_STEPS))
    predicted = boundary(starts, alive)
    starts, network = scanned_starts(losses, depth, predicted)
    alive = network.layer_strengths().prod(0) > starts**depth
    return Row("smallest start, all layers alive", losses, depth, "online", predicted, boundary(starts, alive))


def scanned_starts(losses: str, depth: int, around: float) -> tuple[Tensor, LinearNetwork]:
    """Starts around a value, and the network that was trained from them, a mode from each."""
    starts = around * SCAN
    setting = Setting(losses_of(depth)[losses], rate=0.25, decay=DECAY)
    network = network_of(setting, same(depth, starts), same(depth, starts))
    run(network, SURVIVAL_STEPS)
    return starts, network


def most_noise(depth: int) -> Row:
    """Most noise in which a mode survives the weight decay, with the last loss alone; modes differ in noise."""
    power = 2 * depth - 1
    predicted = power / (power + 1) / (DECAY * (power + 1)) ** (1 / power) - SIGNAL
    noises = predicted * SCAN
    starts = power / ((power + 1) * (SIGNAL + noises))  # where a mode grows fastest
    network = network_of(
        Setting(only(depth, depth), rate=0.25, decay=DECAY), same(depth, starts), same(depth, starts), noise=noises
    )
    run(network, 2 * SURVIVAL_STEPS)
    lost = network.layer_strengths()[0] < starts / 2
    return Row("most noise that is survived", "last", depth, "online", predicted, boundary(noises, lost))


def edge(losses: str, depth: int, momentum: float, layer: float = 0.8) -> Row:
    """Learning rate at which the fixed point is left: the modes of one network differ in scale, so in that rate."""
    weights = losses_of(depth)[losses]
    predicted = stability_edge(weights, [layer] * depth, SIGNAL, NOISE, momentum)
    best = SIGNAL / (SIGNAL + NOISE)
    network = network_of(
        Setting(weights, rate=predicted, momentum=momentum),
        same(depth, layer, len(NEAR)),
        same(depth, best * (1 + 1e-8), len(NEAR)),
        SIGNAL * NEAR,
        NOISE * NEAR,
    )
    early, late = movement(network, 80), movement(network, 60)
    found = predicted * boundary(NEAR, late > early)
    return Row("largest stable learning rate", losses, depth, target_name(momentum), predicted, found)


def movement(network: LinearNetwork, steps: int) -> Tensor:
    """How far each mode moves in ten steps, after `steps` of them."""
    run(network, steps)
    moved = torch.zeros_like(network.signal)
    for _ in range(10):
        before = state(network)
        run(network, 1)
        moved += (state(network) - before).abs().sum(0)
    return moved


def state(network: LinearNetwork) -> Tensor:
    """All strengths of all modes."""
    return torch.cat([network.layer_strengths(), network.predictor_strengths()])


def gaussian(losses: str, depth: int = 3, modes: int = 128) -> Row:
    """Mean growth rate of the first layer's columns where all layers are Gaussian matrices, in no common bases."""
    setting = Setting(losses_of(depth)[losses], rate=0.05)
    predicted = growth_rate(setting, LAYER, PREDICTOR, SIGNAL, NOISE)
    network = network_of(setting, same(depth, LAYER, modes), same(depth, PREDICTOR, modes), modes=modes)
    generator = torch.Generator().manual_seed(1)
    for place in range(depth):
        size = 0.01 if place == 0 else LAYER
        matrix = torch.randn(modes, modes, generator=generator, dtype=torch.float64)
        network.layers[place] = size * matrix / modes**0.5
    network.target = [matrix.clone() for matrix in network.layers]
    before = network.layers[0].norm(dim=0)
    steps = max(1, round(0.02 / predicted / setting.rate))
    run(network, steps)
    rates = (network.layers[0].norm(dim=0) / before).log() / (steps * setting.rate)
    return Row("growth rate, Gaussian layers", losses, depth, "online", predicted, rates.mean().item())


def minibatches(losses: str, depth: int = 2, modes: int = 16, batch: int = 64) -> Row:
    """Mean growth rate of the first layer where each step sees 64 new views."""
    setting = Setting(losses_of(depth)[losses], rate=0.05)
    predicted = growth_rate(setting, LAYER, PREDICTOR, SIGNAL, NOISE)
    layers = same(depth, LAYER, modes)
    layers[0] = 0.01
    network = network_of(setting, layers, same(depth, PREDICTOR, modes), modes=modes, batch=batch)
    steps = round(1 / predicted / setting.rate)
    run(network, steps)
    rates = (network.layer_strengths()[0] / 0.01).log() / (steps * setting.rate)
    return Row("growth rate, batches of 64", losses, depth, "online", predicted, rates.mean().item())


def noise(layers: int) -> Row:
    """Signal to noise in the first layer, of the loss above some ReLU layers over its own loss."""
    question = "signal to noise through ReLUs, share of its own loss's"
    return Row(question, "last", layers + 1, "online", predicted_share(layers), measured_share(layers))


def noise_in_blocks(blocks: int = 4) -> list[Row]:
    """Signal to noise of the last loss's gradient in each residual block over that in the last one."""
    found = measured_falls(blocks, inputs=16, width=4096, images=1500)
    question = "signal to noise in block 1, 2, 3 of 4, share of block 4's"
    return [
        Row(question, "last", block + 1, "online", predicted_fall(blocks - 1 - block), found[block])
        for block in range(blocks - 1)
    ]


def network_of(
    setting: Setting,
    layers: Tensor,
    predictors: Tensor,
    signal: Tensor | float = SIGNAL,
    noise: Tensor | float = NOISE,
    modes: int | None = None,
    batch: int = 0,
) -> LinearNetwork:
    """A network whose modes have the given strengths."""
    count = modes or layers.shape[1]
    spread = [
        value if isinstance(value, Tensor) else torch.full((count,), value, dtype=torch.float64)
        for value in (signal, noise)
    ]
    return LinearNetwork(setting, layers, predictors, *spread, batch=batch)


def run(network: LinearNetwork, steps: int) -> None:
    """Train on."""
    for _ in range(steps):
        network.step()


def boundary(values: Tensor, above: Tensor) -> float:
    """Between which two rising values `above` begins to hold; NaN where it holds for all or for none."""
    if above.all() or not above.any():
        return math.nan
    first = int(above.int().argmax())
    return ((values[first - 1] + values[first]) / 2).item()


def all_rows(depths: tuple[int, ...] = (1, 2, 3, 4)) -> list[Row]:
    """Every case; a network of one layer has its first loss for its last."""
    deep = [depth for depth in depths if depth > 1]
    rows = [growth(kind, depth, tau) for depth, kind, tau in itertools.product(deep, KINDS, (0.0, 0.9, 0.99))]
    rows += [growing(tau) for tau in (0.0, 0.9, 0.99)]
    rows += [escape(kind, depth) for depth, kind in itertools.product(deep, KINDS)]
    rows += [threshold("last", depth) for depth in depths] + [threshold("every", depth) for depth in deep]
    rows += [threshold_of_all("every", depth) for depth in deep] + [most_noise(depth) for depth in depths]
    rows += [learned("last", depth) for depth in depths] + [learned("every", depth) for depth in deep]
    cases = itertools.product(deep, ("last", "every"), (0.0, 0.9, 0.99, 1.0))
    rows += [edge("last", 1, tau) for tau in (0.0, 0.9, 0.99, 1.0)] + [
        edge(kind, depth, tau) for depth, kind, tau in cases
    ]
    rows += [noise(layers) for layers in (1, 2, 3)] + noise_in_blocks()
    return rows + [gaussian(kind) for kind in KINDS] + [minibatches(kind) for kind in KINDS]


KINDS = ("first", "last", "every")


def table(rows: list[Row]) -> str:
    """A line per question, losses and target, a column per depth: predicted / measured."""
    depths = sorted({row.depth for row in rows})
    heads = ["question", "losses", "target", *(f"{depth} layers" if depth > 1 else "1 layer" for depth in depths)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key in dict.fromkeys((row.question, row.losses, row.target) for row in rows):
        found = {row.depth: row for row in rows if (row.question, row.losses, row.target) == key}
        cells = [
            f"{found[depth].predicted:.3g} / {found[depth].measured:.3g}" if depth in found else "" for depth in depths
        ]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    worst = max(rows, key=lambda row: abs(math.log(row.ratio)))
    return (
        "\n".join(lines)
        + f"\n\nLargest distance: {100 * abs(worst.ratio - 1):.1f} % ({worst.question}, {worst.losses})"
    )


def figure(rows: list[Row]) -> bytes:
    """Four answers by depth: predicted as lines, measured as points."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, legend_below

    drawing, png, style = canvas(WIDTH, 5.4)
    drawn = (
        ("growth rate of the first layer", "online"),
        ("time to escape", "online"),
        ("smallest start, first layer alive", "online"),
        ("largest stable learning rate", "EMA 0.99"),
    )
    lines: dict[str, Any] = {}
    with style:
        for place, (question, target) in enumerate(drawn, start=1):
            axes = drawing.add_subplot(2, 2, place)
            for number, kind in enumerate(KINDS):
                chosen = [row for row in rows if (row.question, row.target, row.losses) == (question, target, kind)]
                chosen = [row for row in chosen if row.depth > 1 or kind == "last"]
                if not chosen:
                    continue
                depths = [row.depth for row in chosen]
                colour = LIGHT.series[number]
                (lines[kind],) = axes.plot(depths, [row.predicted for row in chosen], color=colour)
                axes.plot(depths, [row.measured for row in chosen], "o", color=colour)
            axes.set_title(f"{question[0].upper()}{question[1:]}", fontsize=9)
            axes.set_xlabel("layers of the network" if place > 2 else "")
            axes.set_xticks([1, 2, 3, 4])
            axes.set_yscale("log")
        legend_below(drawing, list(lines.values()), [f"loss at {kind}" for kind in lines])
        return png()


def main() -> None:
    """Run every case, print the table, write it and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Folder of theory.json and theory.png.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = all_rows()
    (arguments.output / "theory.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
    )
    (arguments.output / "theory.png").write_bytes(figure(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
