"""The embedded data set: scikit-learn's 1,797 real handwritten digits, as images."""

from typing import Any

from .order import stable_hash

SPLITS = ("train", "test")
SIDE = 32
_TEST_PERCENT = 20


def load_digits_split(split: str) -> Any:
    """The digits of one split: 32 x 32 RGB PNG images and their labels.

    The 8 x 8 images of 17 grey levels are enlarged four times (bicubic). A hash of its pixels assigns each image to a
    split, 20 % of them to the test split, so the split does not depend on the order of the images.

    Args:
        split: "train" or "test".

    Returns:
        `datasets.Dataset` with `image` (Image) and `label` (ClassLabel).
    """
    import datasets
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows: dict[str, list[Any]] = {"image": [], "label": []}
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        is_test = stable_hash("digits", pixels.astype(np.uint8).tobytes().hex()) % 100 < _TEST_PERCENT
        if is_test != (split == "test"):
            continue
        grey = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
        image = grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
        rows["image"].append({"bytes": _png(image), "path": f"digit-{index:04d}.png"})
        rows["label"].append(int(label))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))})
    return datasets.Dataset.from_dict(rows, features=features, split=split)


def _png(image: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
