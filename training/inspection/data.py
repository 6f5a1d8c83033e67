"""`ladder inspect`: what a data set contains, which images cannot be read, and whether reading is fast enough."""

import io
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..data.columns import check_image_column, find_label_column, own_column, without_decoding
from ..data.iterable import DamagedShard, length_of, readable_examples, unopened_shards
from ..data.left_out import account_of
from ..files import write_record
from ..images.value_range import StoredValues, ValueRange
from ..loading.bad_images import is_bad_image, one_line
from ..loading.encoded import encoded_bytes
from ..loading.progress import progress
from .sample import SampleFacts, evenly
from .speed import compare_with_step, measure_input, measure_step

REPORT_FILE = "inspect.json"
SHEET_FILE = "views.png"
_SHOWN = 8
_STREAM_SHARDS = 8


def inspect_data(
    datasets: Sequence[Any],
    *,
    output: str | os.PathLike | None = None,
    split: str = "train",
    streaming: bool = False,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    trust_paths: bool = False,
    transform: Callable[..., dict] | None = None,
    limit: int = 1000,
    batch_size: int = 32,
    num_workers: int = 0,
    seconds: float = 5.0,
    model: Any = None,
    autocast: Any = None,
    seed: int = 0,
) -> dict:
    """Inspect data sets as training would read them.

    Args:
        datasets: Names, as `load_image_stream` takes them, or `datasets` objects.
        output: Folder for `inspect.json` and the contact sheet `views.png`; None writes nothing.
        split: Split to inspect.
        streaming: Read names as streams.
        revision: Branch, tag or commit of Hub data sets.
        image_column: Column of the images; None finds it by its type.
        label_column: Column of the labels; None finds it by its type.
        trust_paths: Follow paths and addresses in the rows wherever they lead.
        transform: Makes the views; default: `TwoViewTransform()`.
        limit: Images to decode per data set, spread over it; 0 for all.
        batch_size: Images per batch when the speed is measured.
        num_workers: Worker processes when the speed is measured.
        seconds: How long the speed is measured.
        model: A `LadderSiameseForPreTraining` whose training step is timed on its device; None skips the comparison.
        autocast: torch dtype of the model's mixed precision; None for none.
        seed: Seed of the views shown.

    Returns:
        {"datasets": [one dict each, see `inspect_one`], "sheet": path or None, "report": path or None}.

    Raises:
        UserError: a data set does not exist, or has no images.
    """
    if transform is None:
        from ..views.two_views import TwoViewTransform

        transform = TwoViewTransform()
    settings = {"streaming": streaming, "revision": revision, "image_column": image_column, "trust_paths": trust_paths}
    loaded = [_load(dataset, split, settings | {"only_if_there": len(datasets) > 1}) for dataset in datasets]
    reports, shown = [], []
    step = None if model is None else measure_step(model, transform, batch_size, autocast=autocast)
    for name, dataset in loaded:
        value_range = getattr(transform, "value_range", None)
        report, images = inspect_one(dataset, image_column, label_column, limit, value_range)
        report["name"] = name
        report["notes"] = account_of(dataset).lines()
        report["input"] = measure_input(
            dataset, transform, image_column, batch_size=batch_size, num_workers=num_workers, seconds=seconds
        )
        report["step"] = None if step is None else compare_with_step(report["input"], *step)
        reports.append(report)
        shown.extend(evenly(images, max(1, _SHOWN // len(loaded))))
    result: dict[str, Any] = {"datasets": reports, "sheet": None, "report": None}
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        if shown:
            from .contact_sheet import save_contact_sheet

            save_contact_sheet(shown, cast(Any, transform), folder / SHEET_FILE, seed=seed)
            result["sheet"] = str(folder / SHEET_FILE)
        result["report"] = str(folder / REPORT_FILE)
        write_record(folder / REPORT_FILE, result)
    return result


def inspect_one(
    dataset: Any,
    image_column: str | None = None,
    label_column: str | None = None,
    limit: int = 1000,
    value_range: ValueRange | None = None,
) -> tuple[dict, list[Any]]:
    """Decode a sample of one data set.

    Args:
        dataset: A `datasets` object.
        image_column: Column of the images; None finds it by its type.
        label_column: Column of the labels; None finds it by its type.
        limit: Images to decode; 0 for all.
        value_range: The stored values that become black and white, in images of more than 8 bits.

    Returns:
        The report: images (number of them, None if not known), columns, image_column, label_column, classes (number),
        labels (label -> count in the sample), looked_at (number of images decoded), unreadable (count),
        unreadable_share, unreadable_examples [{"key", "reason"}], width and height ({"smallest", "median",
        "largest"} in pixels), modes and formats (name -> count), bytes (median file size), without_label (count),
        deep ({"images", "smallest", "largest", "not_numbers"}: the stored values of images of more than 8 bits, and the
        share of NaN in each that has some; None without such images), image_range (`value_range`), account (what the
        data set was taken for and what is left out) and
        damaged_shards. And up to eight readable images, still encoded, spread over the data set.
    """
    column = check_image_column(dataset, own_column(dataset, image_column))
    label = label_column or find_label_column(dataset)
    feature = (dataset.features or {}).get(label) if label else None
    seen = SampleFacts(shown=_SHOWN)
    damaged: list[DamagedShard] = []
    sample = _sample(without_decoding(dataset, column, *([label] if label else [])), limit, damaged)
    total = length_of(dataset) if not limit else min(limit, length_of(dataset) or limit)
    for key, row in progress(sample, "decoding", total=total):
        image = row[column]
        try:
            data = encoded_bytes(image)
            decoded = _decode(data, value_range)
        except Exception as error:
            if not is_bad_image(error):
                raise
            path = image.get("path") if isinstance(image, dict) else None
            seen.add_unreadable(str(path or key), one_line(error))
            continue
        seen.add(data, *decoded)
        if label is not None:
            seen.add_label(row[label])
    facts = seen.report()
    report = {
        "images": length_of(dataset),
        "columns": list(dataset.column_names or []),
        "image_column": column,
        "label_column": label,
        "classes": getattr(feature, "num_classes", None) or (len(facts["labels"]) if label else None),
        **facts,
        "image_range": value_range,
        "account": account_of(dataset).to_json(),
        "damaged_shards": [{"file": shard.file, "reason": shard.reason} for shard in _all_damaged(dataset, damaged)],
    }
    return report, evenly(seen.readable, _SHOWN)


def _load(dataset: Any, split: str, settings: dict[str, Any]) -> tuple[str, Any]:
    if not isinstance(dataset, (str, os.PathLike)):
        return str(dataset.info.dataset_name or "data set"), dataset
    from ..data.sources import load_image_stream

    return os.fspath(dataset), load_image_stream(dataset, split, told=None, **settings)


def _all_damaged(dataset: Any, met: list[DamagedShard]) -> list[DamagedShard]:
    """The shards that could not be opened, and those that were met; a stream names each of them in every pass."""
    return [*unopened_shards(dataset), *met]


def _sample(dataset: Any, limit: int, damaged: list[DamagedShard]) -> Any:
    """Yield (key, row) of rows spread over a data set, or from the beginnings of a stream's shards."""
    if hasattr(dataset, "__len__"):
        count = min(limit, len(dataset)) if limit else len(dataset)
        for row in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
            yield f"row {row}", dataset[row]
        return
    count = dataset.num_shards
    first = np.linspace(0, count - 1, min(_STREAM_SHARDS, count)).round().astype(int).tolist()
    rest = [shard for shard in range(count) if shard not in set(first)]  # only where the first ones are short
    each = -(-limit // len(first)) if limit else None
    rows = itertools.chain.from_iterable(
        itertools.islice(readable_examples(dataset.shard(num_shards=count, index=shard), damaged), each)
        for shard in [*first, *rest]
    )
    for number, row in enumerate(itertools.islice(rows, limit or None)):
        yield f"example {number}", row


def _decode(data: bytes, value_range: ValueRange | None) -> tuple[str, str, tuple[int, int], StoredValues | None]:
    """(mode as stored, format, (width, height) as shown, range of more than 8 bits); the image is decoded in full."""
    from PIL import Image

    from ..images.decode import decode_image, stored_values

    height, width = decode_image(data, value_range=value_range).shape[:2]
    with Image.open(io.BytesIO(data)) as header:
        return header.mode, header.format or "?", (width, height), stored_values(data)
