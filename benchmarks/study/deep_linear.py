"""Deep linear Siamese networks: what the theory predicts of them, and the networks themselves, trained by autograd.

docs/theory.md derives the predictions and names the symbols: a mode has the variance `signal`, common to two views of
an image, and `noise`, of the augmentation; layer k multiplies it by `layers[k]`, the predictor of level l by
`predictors[l]`; `weights[l]` is the weight of level l's loss, zero where there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes:
        weights: Of each level's loss, first layer first; their number is the depth.
        rate: Learning rate.
        decay: Weight decay, of layers and predictors.
        momentum: tau of the target network; 0: the target is the online network, 1: it stays as it is.
    """

    weights: tuple[float, ...]
    rate: float
    decay: float = 0.0
    momentum: float = 0.0

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.weights)


def only(level: int, depth: int) -> tuple[float, ...]:
    """Weights of a network with one loss, after layer `level` (from 1)."""
    return tuple(float(place == level) for place in range(1, depth + 1))


def every(depth: int) -> tuple[float, ...]:
    """Weights of a network with a loss after each layer."""
    return (1.0,) * depth


# Predictions.


def first_layer_map(setting: Setting, layer: float, predictor: float, signal: float, noise: float) -> np.ndarray:
    """One step of a mode's first layer and of its target from a small start, the other weights as they are.

    Args:
        setting: Of the training.
        layer: Strength of every later layer; predictor: of every predictor.
    """
    through = [weight * layer ** (2 * place) for place, weight in enumerate(setting.weights)]
    pull = setting.rate * sum(through) * predictor * signal
    brake = setting.rate * (sum(through) * predictor**2 * (signal + noise) + setting.decay)
    tau = setting.momentum
    return np.array([[1 - brake, pull], [(1 - tau) * (1 - brake), tau + (1 - tau) * pull]])


def growth_rate(setting: Setting, layer: float, predictor: float, signal: float, noise: float) -> float:
    """Exponential rate, per unit of time (steps x learning rate), at which a mode of the first layer grows."""
    largest = max(np.linalg.eigvals(first_layer_map(setting, layer, predictor, signal, noise)).real)
    return float(np.log(largest) / setting.rate)


def target_share(setting: Setting, layer: float, predictor: float, signal: float, noise: float) -> float:
    """How large the target's first layer is against the online one's while a mode grows at that rate."""
    values, vectors = np.linalg.eig(first_layer_map(setting, layer, predictor, signal, noise))
    vector = vectors[:, np.argmax(values.real)].real
    return float(vector[1] / vector[0])


def escape_time(
    layers_below: int, start: float, end: float, predictor: float, signal: float, noise: float, cells: int = 20_000
) -> float:
    """Time until all layers below one loss have grown from `start` to `end`, without weight decay or EMA.

    Args:
        layers_below: 1 for the first layer's own loss, the depth for the last loss alone.
        predictor: Its strength at the start; it grows by the conserved p^2 - a^2.
    """
    middle = start + (np.arange(cells) + 0.5) * (end - start) / cells
    moved = np.sqrt(predictor**2 + middle**2 - start**2)
    speed = middle ** (2 * layers_below - 1) * moved * (signal - moved * (signal + noise))
    return float(np.sum((end - start) / cells / speed))


def scalar_escape(setting: Setting, start: float, end: float, predictor: float, signal: float, noise: float) -> float:
    """Time until the product of all layers passes `end` ** depth, by the scalar equations, for any weights."""
    layers, predictors = np.full((setting.depth, 1), start), np.full((setting.depth, 1), predictor)
    time, step = 0.0, 0.02
    while np.prod(layers) < end**setting.depth:
        change = flow(layers, predictors, setting, signal, noise)
        middle = flow(layers + step / 2 * change[0], predictors + step / 2 * change[1], setting, signal, noise)
        layers, predictors, time = layers + step * middle[0], predictors + step * middle[1], time + step
    return time


def scalar_survivors(setting: Setting, starts: np.ndarray, signal: float, noise: float, steps: int) -> np.ndarray:
    """Whether the product of all layers grows from each start (the same in all layers and predictors)."""
    layers, predictors = np.tile(starts, (setting.depth, 1)), np.tile(starts, (setting.depth, 1))
    for _ in range(steps):
        change = flow(layers, predictors, setting, signal, noise)
        layers, predictors = layers + setting.rate * change[0], predictors + setting.rate * change[1]
    return layers.prod(0) > starts**setting.depth


def flow(
    layers: np.ndarray, predictors: np.ndarray, setting: Setting, signal: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Time derivatives of layers and predictors (depth, modes) where the target is the online network."""
    product = np.cumprod(layers, axis=0)
    error = np.array(setting.weights)[:, None] * product * (signal - predictors * (signal + noise))
    from_levels = np.cumsum((predictors * product * error)[::-1], axis=0)[::-1]
    return from_levels / layers - setting.decay * layers, product * error - setting.decay * predictors


def collapse_threshold(layers_below: int, decay: float, signal: float, noise: float) -> tuple[float, float]:
    """The two fixed points a of a^(2L-1) (signal - a (signal + noise)) = decay: below the first a mode collapses.

    Raises:
        ValueError: the weight decay is larger than `largest_decay`.
    """
    if decay >= largest_decay(layers_below, signal, noise):
        raise ValueError("at this weight decay every start collapses")
    power, total = 2 * layers_below - 1, signal + noise
    top = power * signal / ((power + 1) * total)

    def root(low: float, high: float, rising: bool) -> float:
        for _ in range(200):
            middle = (low + high) / 2
            above = middle**power * (signal - middle * total) > decay
            low, high = (low, middle) if above == rising else (middle, high)
        return (low + high) / 2

    return root(0.0, top, True), root(top, signal / total, False)


def largest_decay(layers_below: int, signal: float, noise: float) -> float:
    """Weight decay above which a mode collapses from every balanced start."""
    power, total = 2 * layers_below - 1, signal + noise
    return signal / (power + 1) * (power * signal / ((power + 1) * total)) ** power


def step_matrix(setting: Setting, layers: Sequence[float], signal: float, noise: float) -> np.ndarray:
    """One step, linearised at the fixed point without weight decay (predictors signal / (signal + noise)).

    Order of the rows: predictors of the levels that have a loss, layers, the target's layers.
    """
    levels = [place for place, weight in enumerate(setting.weights) if weight]
    depth, total, best = setting.depth, signal + noise, signal / (signal + noise)
    product = np.cumprod(layers)
    count = len(levels)
    move = np.zeros((count + depth, count + 2 * depth))
    for row, level in enumerate(levels):
        error = np.zeros(count + 2 * depth)  # derivative of error = signal v - total p u
        error[row] = -total * product[level]
        for layer in range(level + 1):
            error[count + layer] = -total * best * product[level] / layers[layer]
            error[count + depth + layer] = signal * product[level] / layers[layer]
        move[row] += setting.weights[level] * product[level] * error
        for layer in range(level + 1):
            move[count + layer] += setting.weights[level] * best * product[level] / layers[layer] * error
    online = np.eye(count + depth, count + 2 * depth) + setting.rate * move
    tau = setting.momentum
    target = tau * np.eye(count + 2 * depth)[count + depth :] + (1 - tau) * online[count:]
    return np.concatenate([online, target])


def stability_edge(
    weights: tuple[float, ...], layers: Sequence[float], signal: float, noise: float, tau: float
) -> float:
    """The learning rate above which the fixed point is left: an eigenvalue of a step is larger than 1."""

    def unstable(rate: float) -> bool:
        matrix = step_matrix(Setting(weights, rate, momentum=tau), layers, signal, noise)
        return bool(np.abs(np.linalg.eigvals(matrix)).max() > 1 + 1e-6)

    low, high = 0.0, 1.0
    while not unstable(high):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return high


def edge_of_online_target(weights: Sequence[float], layers: Sequence[float], signal: float, noise: float) -> float:
    """The edge in closed form where the target is the online network."""
    return 2 / ((signal + noise) * max(w * u**2 for w, u in zip(weights, np.cumprod(layers), strict=True)))


def edge_of_fixed_target(weights: Sequence[float], layers: Sequence[float], signal: float, noise: float) -> float:
    """The edge in closed form where the target does not move: 2 over the largest curvature."""
    product, best = np.cumprod(layers), signal / (signal + noise)
    slopes = np.zeros((len(layers), 2 * len(layers)))  # a row per level: by its predictor, by each layer below
    for level, weight in enumerate(weights):
        slopes[level, level] = product[level]
        slopes[level, len(layers) : len(layers) + level + 1] = best * product[level] / np.array(layers[: level + 1])
        slopes[level] *= weight**0.5
    return float(2 / ((signal + noise) * np.linalg.eigvalsh(slopes @ slopes.T).max()))


# The networks.


class LinearNetwork:
    """A deep linear Siamese network of square layers with a predictor at each level, trained on two views.

    Layers and predictors are full matrices in random bases; the gradient is autograd's, of the loss itself.

    Args:
        setting: Of the training.
        layers: Strength of each mode in each layer (depth, modes), or of all alike.
        predictors: The same of the predictors.
        signal: Variance of each mode that both views have in common, (modes,).
        noise: Variance of each mode within the views of an image.
        seed: Of bases and data.
        batch: Views drawn anew at each step; 0: a fixed set whose covariances are exact.
    """

    def __init__(
        self,
        setting: Setting,
        layers: Tensor,
        predictors: Tensor,
        signal: Tensor,
        noise: Tensor,
        seed: int = 0,
        batch: int = 0,
    ) -> None:
        self.setting, self.signal, self.noise, self.batch = setting, signal.double(), noise.double(), batch
        self.random = torch.Generator().manual_seed(seed)
        modes, depth = len(signal), setting.depth
        self.bases = [self._orthogonal(modes, modes) for _ in range(depth + 1)]
        self.layers = [(self.bases[k + 1] * layers[k].double()) @ self.bases[k].T for k in range(depth)]
        self.predictors = [(self.bases[k + 1] * predictors[k].double()) @ self.bases[k + 1].T for k in range(depth)]
        self.target = [matrix.clone() for matrix in self.layers]
        self.exact = self._orthogonal(3 * modes, 3 * modes).T.reshape(3, modes, 3 * modes) * (3 * modes) ** 0.5

    def step(self) -> None:
        """One step of gradient descent with weight decay, then of the target."""
        setting, online = self.setting, [*self.layers, *self.predictors]
        for matrix in online:
            matrix.requires_grad_(True)
        gradients = torch.autograd.grad(self._loss(), online, allow_unused=True)
        with torch.no_grad():
            for place, (matrix, gradient) in enumerate(zip(online, gradients, strict=True)):
                change = setting.decay * matrix + (0 if gradient is None else gradient)
                online[place] = matrix.detach() - setting.rate * change
            self.layers, self.predictors = online[: setting.depth], online[setting.depth :]
            self.target = [
                setting.momentum * old + (1 - setting.momentum) * new
                for old, new in zip(self.target, self.layers, strict=True)
            ]

    def layer_strengths(self) -> Tensor:
        """(depth, modes): each layer's part along its modes."""
        return torch.stack(
            [(self.bases[k + 1] * (matrix @ self.bases[k])).sum(0) for k, matrix in enumerate(self.layers)]
        )

    def predictor_strengths(self) -> Tensor:
        """(depth, modes): each predictor's part along its modes."""
        return torch.stack(
            [(self.bases[k + 1] * (matrix @ self.bases[k + 1])).sum(0) for k, matrix in enumerate(self.predictors)]
        )

    def _loss(self) -> Tensor:
        """Half the squared distance of prediction and target, both directions, over all levels."""
        first, second = self._views()
        maps, targets = [first, second], [first, second]
        total = torch.zeros((), dtype=torch.float64)
        for level, weight in enumerate(self.setting.weights):
            maps = [self.layers[level] @ view for view in maps]
            if self.setting.momentum == 0:
                targets = [view.detach() for view in maps]
            else:
                targets = [self.target[level].detach() @ view for view in targets]
            if weight:
                for view, other in zip(maps, targets[::-1], strict=True):
                    distance = self.predictors[level] @ view - other
                    total = total + weight / 4 * distance.square().sum(0).mean()
        return total

    def _views(self) -> tuple[Tensor, Tensor]:
        modes = len(self.signal)
        parts = self.exact
        if self.batch:
            parts = torch.randn(3, modes, self.batch, generator=self.random, dtype=torch.float64)
        common, spread = self.signal.sqrt()[:, None] * parts[0], self.noise.sqrt()[:, None]
        return self.bases[0] @ (common + spread * parts[1]), self.bases[0] @ (common + spread * parts[2])

    def _orthogonal(self, rows: int, columns: int) -> Tensor:
        return torch.linalg.qr(torch.randn(rows, columns, generator=self.random, dtype=torch.float64))[0]
