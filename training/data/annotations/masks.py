"""Masks as images: a folder of images and a folder of PNG files with the same names."""

from pathlib import Path

from .places import by_stem, files_in, folder_pairs, images_in, subfolders
from .voc import voc_splits

MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentationclass",
    "gt",
    "groundtruth",
)
_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
_TAILS = ("_mask", "-mask", "_label", "_gt", "_seg", "_L")


def mask_pairs(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Each image and its mask, by split; a mask has the image's name, or that name and "_mask" or the like.

    PASCAL VOC's `SegmentationClass/` is one of the folders, and its `ImageSets/Segmentation/` names the splits.
    """
    found = {}
    for split, (images, masks) in folder_pairs(root, MASK_FOLDERS).items():
        pairs = _pairs(images, masks)
        if pairs:
            found[split] = pairs
    voc = [path for path in subfolders(root) if path.name == "SegmentationClass"]
    listed = voc_splits(root, "Segmentation") if voc else {}
    if voc and (root / "JPEGImages").is_dir():
        named = {image.stem: (image, mask) for image, mask in _pairs(root / "JPEGImages", voc[0])}
        chosen = {split: [named[stem] for stem in stems if stem in named] for split, stems in listed.items()}
        found = {split: pairs for split, pairs in chosen.items() if pairs} or (
            {"train": [*named.values()]} if named else {}
        )
    return found


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    of = by_stem(files_in(masks, _ENDINGS))
    found = []
    for image in images_in(images):
        mask = next((of[image.stem + tail] for tail in ("", *_TAILS) if image.stem + tail in of), None)
        if mask is not None:
            found.append((image, mask))
    return found
