"""What a command may be given as a model: a run's folder, a checkpoint, an exported folder or a Hub name.

A Hub name may end in `@REVISION`, a branch, a tag or a commit: `user/name@v1`.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseModel

PREPROCESSOR = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_IMAGE_SIZE = 224
# Below this size images are resized to the crop itself: data sets of small images are framed already.
SMALL_IMAGE_SIZE = 128
CROP_FRACTION = 0.875
MAX_IMAGE_SIZE = 8192
PROCESSOR_FIELDS = frozenset(
    {"do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"}
    | {"do_normalize", "image_mean", "image_std", "do_convert_rgb"}
)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")


def model_folder(reference: str) -> str:
    """The folder (or Hub name) that holds a model's files.

    A run that has not finished stands for its newest whole checkpoint.

    Raises:
        UserError: the folder exists and holds no model.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        if reference.startswith((".", "/", "~")) or reference.split("@")[0].count("/") > 1:
            raise UserError(f"there is no folder {reference}")
        return reference
    if not path.is_dir():
        raise UserError(f"{reference} is a file; give the folder of a model")
    if (path / "config.json").is_file():
        return str(path)
    from .checkpoints import damage, list_checkpoints

    for checkpoint in reversed(list_checkpoints(path)):
        if damage(checkpoint) is None:
            return str(checkpoint)
    raise UserError(f"{reference} holds no model: neither config.json nor a whole checkpoint-N")


def split_revision(reference: str, revision: str | None = None) -> tuple[str, str | None]:
    """A reference without its `@REVISION`, and the revision; a path that exists is never split.

    Args:
        reference: As given by the user.
        revision: Given apart from the reference.

    Raises:
        UserError: two different revisions are given, or one for a folder.
    """
    if Path(reference).expanduser().exists():
        if revision is not None:
            raise UserError(f"{reference} is a folder on disk, which has no revision {revision}; leave that out")
        return reference, None
    name, _, behind = reference.rpartition("@")
    if not behind or not HUB_NAME.fullmatch(name):
        return reference, revision
    if revision not in (None, behind):
        raise UserError(f"{reference} and revision {revision} are two revisions; give one")
    return name, behind


def with_revision(reference: str, revision: str | None) -> str:
    """A reference with its revision behind an `@`, as `split_revision` reads it."""
    name, revision = split_revision(reference, revision)
    return name if revision is None else f"{name}@{revision}"


def why_not_loaded(reference: str, error: Exception) -> str:
    """What a failed load says to somebody who gave a name or a folder to a command."""
    text = " ".join(str(error).split())
    if "is not a valid model identifier" in text:
        text = (
            "there is no such folder, and no repository on the Hub that your access token shows; check the name, or "
            "log in with `hf auth login`"
        )
    elif "couldn't connect to" in text and "find them in the cached files" in text:
        text = "the Hub cannot be reached and the cache does not hold it; connect once, then run the same command again"
    return f"{reference} cannot be loaded as a model: {text}"


def hub_file(name: str, path: str, revision: str | None = None) -> Path | None:
    """A file of a Hub repository, through the cache; None where the repository does not have it.

    Raises:
        UserError: there is no such repository or revision, or nobody can say whether it has the file: a model without
            the file must not be taken for it while the Hub cannot be asked.
    """
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils import cached_file

    try:
        found = cached_file(name, path, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(why_not_loaded(name, error)) from error
    if found is None and try_to_load_from_cache(name, path, revision=revision) is None:
        raise UserError(
            f"{name}: the Hub cannot be reached and the cache does not hold {path}; connect once, then run the same "
            "command again"
        )
    return None if found is None else Path(found)


def load_model(reference: str, revision: str | None = None) -> "LadderSiameseModel":
    """Load the online backbone of any model, in eval mode, in float32 on the CPU.

    Raises:
        UserError: there is no such model, or its files cannot be loaded.
    """
    import torch

    from modeling_ladder import LadderSiameseModel

    folder, revision = split_revision(model_folder(reference), revision)
    try:
        return LadderSiameseModel.from_pretrained(folder, dtype=torch.float32, revision=revision).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(why_not_loaded(reference, error)) from error


def verified(reference: str, revision: str | None = None, subfolder: str | None = None) -> str:
    """Compare a model's files with the Hub's checksums before anything of them is loaded.

    Args:
        reference: Hub name, a downloaded folder or a pushed run; the card or the cache says where it is on the Hub.
        revision: Branch, tag or commit.
        subfolder: Part of the repository whose weights will be loaded; None is its root.

    Returns:
        The reference to load from; a Hub name has the commit that was compared, so that nothing else is loaded.

    Raises:
        UserError: a file is not the Hub's, or the Hub cannot be asked.
    """
    from ladder_model_cards import PushError, verify_checksums
    from modeling_ladder.checking import check_before_loading

    place, revision = split_revision(model_folder(reference), revision)
    try:
        if not Path(place).is_dir():
            check_before_loading(place, revision=revision, subfolder=subfolder or "")
            processor_of(place, revision=revision)
        found = verify_checksums(place, revision=revision)
    except PushError as error:
        raise UserError(str(error)) from error
    except (OSError, ValueError) as error:
        raise UserError(why_not_loaded(reference, error)) from error
    if found.differing or not found.checked:
        what = ", ".join(found.differing) or "no file at all"
        raise UserError(
            f"{what} in {found.folder} is not what {found.repo_id} holds on the Hub at {found.revision}: nothing was "
            f"loaded; get it again with `hf download {found.repo_id} --revision {found.revision} --force-download`"
        )
    print(f"{found.checked} files are as {found.repo_id} holds them at {found.revision}")
    return place if Path(place).is_dir() else f"{place}@{found.revision}"


def image_processor(
    image_size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Any:
    """The processor that is saved with a model: shorter side, centre crop, mean and deviation, all explicit.

    transformers' default for "resnet" is another one (384 pixels, mean 0.5), so a model never goes without its own.

    Args:
        image_size: Side of the images that the network was trained on, in pixels.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
    """
    from transformers import BitImageProcessor

    shorter = image_size if image_size < SMALL_IMAGE_SIZE else round(image_size / CROP_FRACTION)
    return BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": shorter},
        resample=3,
        do_center_crop=True,
        crop_size={"height": image_size, "width": image_size},
        do_rescale=True,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
    )


def processor_of(reference: str, image_size: int | None = None, revision: str | None = None) -> Any:
    """The image processor of a model: its own, its run's, or the default of `image_processor`.

    Args:
        reference: As given by the user.
        image_size: Side of the images; replaces what the model says.
        revision: Of a Hub repo.
    """
    settings = _saved_settings(*split_revision(model_folder(reference), revision))
    mean = tuple(settings.get("image_mean") or IMAGENET_MEAN)
    std = tuple(settings.get("image_std") or IMAGENET_STD)
    crop = settings.get("crop_size") or settings.get("size") or {}
    saved = crop.get("height") or crop.get("shortest_edge") if isinstance(crop, dict) else crop
    if image_size is None and str(settings.get("image_processor_type")).startswith("BitImageProcessor"):
        from transformers import BitImageProcessor

        # Only its own fields: `from_dict` would set any attribute that a file names.
        return BitImageProcessor(**{name: value for name, value in settings.items() if name in PROCESSOR_FIELDS})
    return image_processor(int(image_size or saved or DEFAULT_IMAGE_SIZE), mean, std)


def _saved_settings(folder: str, revision: str | None) -> dict[str, Any]:
    """A model's preprocessor_config.json; empty where there is none."""
    path = Path(folder)
    candidates = [path / PREPROCESSOR, path.resolve().parent / PREPROCESSOR] if path.is_dir() else []
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if not path.is_dir():
        file = hub_file(folder, PREPROCESSOR, revision)
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no JSON object")
    _check_settings(settings, str(file))
    return settings


def _check_settings(settings: dict[str, Any], where: str) -> None:
    """Refuse sizes and pixel statistics that no image processor has: they come from somebody else's file.

    Raises:
        UserError: names the field.
    """
    for name in ("size", "crop_size"):
        found = settings.get(name)
        for side in found.values() if isinstance(found, dict) else [found]:
            if side is not None and (type(side) is not int or not 0 < side <= MAX_IMAGE_SIZE):
                raise UserError(f"{where}: {name} is {found!s:.80}; sides are from 1 to {MAX_IMAGE_SIZE} pixels")
    for name in PROCESSOR_FIELDS - {"size", "crop_size", "image_mean", "image_std"}:
        found = settings.get(name)
        if found is not None and not (isinstance(found, bool) or (type(found) in (int, float) and abs(found) < 1e6)):
            raise UserError(f"{where}: {name} is {found!s:.80}, which is no number")
    for name in ("image_mean", "image_std"):
        found = settings.get(name)
        values = found if isinstance(found, list) else [found]
        numbers = [value for value in values if type(value) in (int, float) and abs(value) < 1e6]
        if found is not None and (len(numbers) != len(values) or not 1 <= len(values) <= 4):
            raise UserError(f"{where}: {name} is {found!s:.80}; give one finite number per channel")
        if name == "image_std" and found is not None and not all(value > 0 for value in numbers):
            raise UserError(f"{where}: image_std is {found!s:.80}; deviations are above 0")
