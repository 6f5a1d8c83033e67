"""`TwoViewTransform`: the two asymmetric views of BYOL (arXiv 2006.07733, appendix B), at the speed of decoding.

Both crops are drawn before decoding, from the size in the file's header. The image is then decoded once, at the
smallest scale that has enough pixels for both crops, and only down to their last row. Each crop is resized in one step,
colours are changed on uint8 in fused passes (`colour`), and normalisation writes directly into the result. Views of a
JPEG that was decoded at 1/2, 1/4 or 1/8 differ from those of the full image by one or two levels of 255 on average,
because libjpeg averages pixels differently than resizing does.

Resizing is torch's antialiased bicubic on uint8: the operation of torchvision's RandomResizedCrop, vectorised. BYOL's
own code does not antialias, so large photographs are aliased; `antialias=False` does the same. OpenCV's bicubic never
antialiases, and its area averaging takes five times as long.

By default OpenCV and torch use all cores for one image. Data workers call `cv2.setNumThreads(0)` and
`torch.set_num_threads(1)` when they start; this module does not change these settings.
"""

import inspect
import math
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config.image_defaults import IMAGENET_MEAN, IMAGENET_STD
from ..images.decode import MAX_PIXELS, OpenedImage, open_image
from ..images.orientation import Box, box_in_shown, box_in_stored, orient
from ..images.value_range import ValueRange, check_range
from . import colour
from .draws import Chances, Draws

_COUNTS = {"blur": 2, "solarize": 2, "mean": 3, "std": 3}
_PROBABILITIES = ("flip", "jitter", "grayscale", "blur", "solarize", "solarize_threshold")
_RANGES = (("min_scale", "max_scale"), ("min_ratio", "max_ratio"), ("min_sigma", "max_sigma"))


class TwoViewTransform:
    """Makes two random views of an image, each with its crop box in the source image and a flip flag.

    A pair of values belongs to view 1 and view 2. The defaults are BYOL's.

    Args:
        size: Height and width of a view in pixels.
        min_scale: Smallest area of a crop, as a fraction of the image's area.
        max_scale: Largest area of a crop.
        min_ratio: Smallest width / height of a crop.
        max_ratio: Largest width / height of a crop.
        flip: Probability of a horizontal flip.
        jitter: Probability of changing brightness, contrast, saturation and hue, in random order.
        brightness: The brightness factor is drawn from [1 - brightness, 1 + brightness].
        contrast: Same for the contrast factor.
        saturation: Same for the saturation factor.
        hue: Largest hue shift, as a fraction of the hue circle; at most 0.5.
        grayscale: Probability of conversion to grey.
        blur: Probabilities of a Gaussian blur.
        min_sigma: Smallest standard deviation of the blur, in pixels of the view.
        max_sigma: Largest standard deviation of the blur.
        solarize: Probabilities of inverting all values of at least `solarize_threshold`.
        solarize_threshold: Value from which solarizing inverts, in [0, 1].
        mean: Mean for the normalisation, per channel, for values in [0, 1].
        std: Standard deviation for the normalisation, per channel.
        antialias: Average all source pixels when a crop is made smaller.
        max_pixels: Images with more pixels are refused as decompression bombs.
        value_range: The stored values that become black and white, in images of more than 8 bits; None takes the range
            of their type.
        device_mode: Only crop and flip. `DeviceViews` then does colours, blur and normalisation on the device, with
            the same parameters for the same seed.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        size: int = 224,
        *,
        min_scale: float = 0.08,
        max_scale: float = 1.0,
        min_ratio: float = 3 / 4,
        max_ratio: float = 4 / 3,
        flip: float = 0.5,
        jitter: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        grayscale: float = 0.2,
        blur: tuple[float, float] = (1.0, 0.1),
        min_sigma: float = 0.1,
        max_sigma: float = 2.0,
        solarize: tuple[float, float] = (0.0, 0.2),
        solarize_threshold: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        antialias: bool = True,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        device_mode: bool = False,
    ) -> None:
        given = locals()
        self._settings = {name: given[name] for name in inspect.signature(TwoViewTransform).parameters}
        _check(self._settings)
        if value_range is not None:
            self._settings["value_range"] = check_range(value_range, "value_range")
        self.value_range = self._settings["value_range"]
        for name in _COUNTS:
            self._settings[name] = tuple(float(number) for number in self._settings[name])
        self.size, self.device_mode, self.antialias, self.max_pixels = int(size), device_mode, antialias, max_pixels
        self.mean, self.std, self.max_sigma = self._settings["mean"], self._settings["std"], max_sigma
        self.solarize_threshold = solarize_threshold
        self.chances = Chances(
            scale=(min_scale, max_scale),
            ratio=(min_ratio, max_ratio),
            flip=flip,
            jitter=jitter,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            grayscale=grayscale,
            blur=self._settings["blur"],
            sigma=(min_sigma, max_sigma),
            solarize=self._settings["solarize"],
        )
        _keep_freed_memory()
        self._solarize_from = math.ceil(solarize_threshold * 255)
        # (level / 255 - mean) / std as one multiplication and one addition
        self._normalise = [(1 / (255 * s), -m / s) for m, s in zip(self.mean, self.std, strict=True)]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _keep_freed_memory()

    def to_dict(self) -> dict[str, Any]:
        """Return every constructor argument; `TwoViewTransform(**transform.to_dict())` is an equal transform."""
        return dict(self._settings)

    def __repr__(self) -> str:
        return f"TwoViewTransform({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TwoViewTransform) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(tuple(self._settings.items()))

    def __call__(self, image: Any, seed: int | None = None) -> dict[str, Tensor]:
        """Make the two views.

        Args:
            image: Encoded bytes, a path, a PIL image, a uint8 array (height, width, 3), or a `datasets` image
                dictionary.
            seed: Seed of all random choices. None draws fresh entropy. Global random states are neither read nor
                changed.

        Returns:
            A dictionary with

            - `pixel_values`: float32 (2, 3, size, size), normalised; uint8 in device mode.
            - `view_boxes`: float32 (2, 4), the exact crops as x0, y0, x1, y1 in [0, 1] of the image as shown.
            - `view_flips`: bool (2,), whether the crop was flipped horizontally afterwards.
            - `view_parameters`: float32 (2, `PARAMETER_COUNT`), for `DeviceViews`; in device mode only.

        Raises:
            BadImageError: the image cannot be read.
        """
        opened, draws = open_image(image, self.max_pixels, self.value_range), Draws(self.chances, seed)
        boxes = [draws.crop(view, opened.width, opened.height) for view in range(2)]
        reduction = self._reduction(opened, boxes)
        located = [_locate(box, opened, reduction) for box in boxes]
        stored = opened.stored_pixels(reduction, rows=reduction * max(y1 for (_, _, _, y1), _ in located))
        colours = [draws.colours(view) for view in range(2)]
        flips = [draws.flip(view) for view in range(2)]
        squares, shares = [], []
        # Make both crops before changing any colour, while the image is in the processor's cache.
        for (inside, (x0, y0, x1, y1)), flip in zip(located, flips, strict=True):
            shares.append((x0 / opened.width, y0 / opened.height, x1 / opened.width, y1 / opened.height))
            square = self._resize(stored, inside, opened.orientation)
            squares.append(cv2.flip(square, 1) if flip else square)
        pixels = np.empty((2, 3, self.size, self.size), np.uint8 if self.device_mode else np.float32)
        for square, parameters, planes in zip(squares, colours, pixels, strict=True):
            if self.device_mode:
                colour.split(square, planes)
            else:
                solarize_from = self._solarize_from if parameters.solarize else None
                jittered = colour.jitter(square, parameters)
                colour.finish(jittered, parameters.sigma, solarize_from, self._normalise, planes)
        views = {
            "pixel_values": torch.from_numpy(pixels),
            "view_boxes": torch.from_numpy(np.array(shares, np.float32)),
            "view_flips": torch.from_numpy(np.array(flips)),
        }
        if self.device_mode:
            rows = np.array([parameters.to_row() for parameters in colours], np.float32)
            views["view_parameters"] = torch.from_numpy(rows)
        return views

    def _reduction(self, opened: OpenedImage, boxes: list[Box]) -> int:
        """Return the largest r for which both crops, decoded at 1/r, still have as many pixels as a view."""
        shortest = min(min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
        return next((r for r in opened.reductions if shortest // r >= self.size), 1)

    def _resize(self, stored: np.ndarray, box: Box, orientation: int) -> np.ndarray:
        """Crop, resize to uint8 (size, size, 3), and apply the EXIF orientation."""
        x0, y0, x1, y1 = box
        piece = np.ascontiguousarray(stored[y0:y1, x0:x1])  # torch would make this copy too, but more slowly
        if not piece.flags.writeable:  # torch cannot wrap read-only memory
            piece = piece.copy()
        # torch's vectorised kernel needs channels-last memory; numpy permutes the axes faster than torch does.
        square = functional.interpolate(
            torch.from_numpy(piece.reshape(1, *piece.shape).transpose(0, 3, 1, 2)),
            (self.size, self.size),
            mode="bicubic",
            antialias=self.antialias,
        )
        square = square.numpy()[0].transpose(1, 2, 0)
        return np.ascontiguousarray(square if orientation == 1 else orient(square, orientation))


def _locate(box: Box, opened: OpenedImage, reduction: int) -> tuple[Box, Box]:
    """Map a crop to the decoded pixels.

    Args:
        box: The crop, in pixels of the image as shown.
        opened: The image.
        reduction: The image is decoded at 1/reduction of its size.

    Returns:
        The box in decoded pixels (before the EXIF rotation), and the same box in pixels of the image as shown. If the
        image is reduced, the edges are rounded to whole decoded pixels, so that the reported box is the exact crop.
    """
    width, height = opened.width, opened.height
    inside = box_in_stored(box, opened.orientation, width, height)
    if reduction == 1:
        return inside, box
    # The last decoded pixel of a row or column may cover fewer than r stored pixels: leave it out.
    across, down = (side // reduction for side in opened.stored_size)
    x0, y0, x1, y1 = (round(side / reduction) for side in inside)
    inside = (x0, y0, min(x1, across), min(y1, down))
    x0, y0, x1, y1 = (side * reduction for side in inside)
    return inside, box_in_shown((x0, y0, x1, y1), opened.orientation, width, height)


def _keep_freed_memory() -> None:
    """Make glibc keep up to 32 MB of freed memory, instead of returning it to the system after every image.

    Returning it causes 400 to 700 page faults per image, up to half of the time of a pair of views. glibc raises its
    thresholds when a program frees a large block (`man mallopt`, M_MMAP_THRESHOLD). This allocates and frees such a
    block without touching its pages. With other C libraries it has no effect.
    """
    np.empty(16 << 20, np.uint8)


def _check(values: dict[str, Any]) -> None:
    """Raise a ValueError that names the first value that is out of range."""
    for name, least in (("size", 2), ("max_pixels", 1)):
        if isinstance(values[name], bool) or not isinstance(values[name], int) or values[name] < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {values[name]!r}")
    for name, count in _COUNTS.items():
        if not isinstance(values[name], (tuple, list)) or len(values[name]) != count:
            raise ValueError(f"{name} must be {count} numbers, got {values[name]!r}")
    for name in _PROBABILITIES:
        numbers = values[name] if name in _COUNTS else (values[name],)
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"{name} must lie between 0 and 1, got {values[name]!r}")
    for low, high in _RANGES:
        if not 0 < values[low] <= values[high] < float("inf"):
            raise ValueError(f"{low} must be above 0 and at most {high}, got {values[low]} and {values[high]}")
    if values["max_scale"] > 1:
        raise ValueError(f"max_scale must be at most 1, got {values['max_scale']}")
    for name, most in (("brightness", None), ("contrast", None), ("saturation", None), ("hue", 0.5)):
        if not 0 <= values[name] < float("inf") or (most is not None and values[name] > most):
            raise ValueError(f"{name} must be at least 0{f' and at most {most}' if most else ''}, got {values[name]}")
    if not all(number > 0 for number in values["std"]):
        raise ValueError(f"std must be above 0, got {values['std']}")
