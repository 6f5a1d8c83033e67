"""Embeddings of every image of a data set: computed in parts, on one or several processes, and joined to one file."""

import dataclasses
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ...loading.bad_images import LARGER_SHARE_GOES_ON, BadImage, BadImageCount
from ...loading.depth import say_if_dark
from ...loading.progress import progress
from ...models.all_stages import ALL_STAGES, with_all_stages
from ...models.stage_sizes import check_image_size
from ...runs.agreement import Known, all_or_none, chosen_by_first, patient_group, process_count
from ..backbone import ImageSettings, StageFeatures, load_backbone, load_image_settings, model_name
from ..features import check_finite, pooled_features
from ..image_transforms import CenterTransform
from ..tuning import make_accelerator
from .options import EmbedOptions
from .parts import Destination, is_finished, make_schema, merge, read_bad, start, write_part
from .rows import Label, Prepared, SplitRows, default_threads, open_split, prepared_rows


@dataclass
class Embedded:
    """What was written.

    Attributes:
        files: The files.
        count: Number of embeddings.
        widths: Column to number of channels.
        splits: Names of the splits.
        bad: [id, reason] of every image that could not be read, and is not in the file.
        computed: Number of images that this call computed; the others were there from an earlier one.
        seconds: Wall-clock time.
    """

    files: list[Path]
    count: int
    widths: dict[str, int]
    splits: list[str]
    bad: list[list[str]] = field(default_factory=list)
    computed: int = 0
    seconds: float = 0.0


def embed(options: EmbedOptions, model: Any = None, dataset: Any = None) -> Embedded | None:
    """Write the embeddings of a data set to one file.

    Each process embeds every n-th part. A part that an earlier call has written is not computed again.

    Args:
        options: What to embed, and where to.
        model: The model, if `options.model` only names it; see `load_backbone`.
        dataset: `Dataset`, `IterableDataset` or a dict of them, if `options.dataset` only names it.

    Returns:
        What was written; None if the file holds these embeddings already.

    Raises:
        UserError: an option does not fit, the output holds something else, or no image can be read.
        TooManyBadImages: more images cannot be read than `max_bad_fraction` allows. The parts stay: the same options
            with a larger share go on.
    """
    from ladder_model_cards.secrets import hide_in_values

    started = time.monotonic()
    accelerator = make_accelerator(options.device, options.mixed_precision)
    model = options.model if model is None else model

    def opened() -> tuple[ImageSettings, StageFeatures, list[SplitRows], Label]:
        settings = load_image_settings(model, options.image_size, options.crop_fraction)
        backbone = load_backbone(model, accelerator.device, trained_padding=True)
        check_image_size(backbone, backbone, settings.size, backbone.stages[-1])
        splits = _splits(options, options.dataset if dataset is None else dataset)
        return settings, backbone, splits, _common_label(splits)

    settings, backbone, splits, label = all_or_none(opened, patient_group())
    columns = _columns(backbone, options)
    for split in splits:
        say_if_dark(options.dataset, split.dataset, split.image, settings.value_range)
    plan = {
        "model": model_name(model),
        "weights": _digest(backbone),
        "dataset": options.dataset,
        "files": _files(options.dataset if dataset is None else dataset, [split.name for split in splits]),
        "trust_paths": options.trust_paths,
        "splits": {split.name: split.fingerprint() for split in splits},
        "stages": columns,
        "normalized": options.normalize,
        "image_size": settings.size,
        "crop_fraction": round(settings.crop_fraction, 6),
        "image_mean": [round(value, 6) for value in settings.mean],
        "image_std": [round(value, 6) for value in settings.std],
        "mixed_precision": options.mixed_precision,
        "part_images": options.part_images,
        "features": "average-pooled stages of the online network in eval mode",
    }
    if settings.value_range is not None:
        plan["image_range"] = list(settings.value_range)
    plan = hide_in_values(plan)
    npy = next(iter(columns)) if options.ending == ".npy" else None
    destination = Destination(Path(options.output).expanduser(), plan, make_schema(label, columns), npy)
    if chosen_by_first(lambda: _begin(destination)):
        return None
    keys = [(number, part) for number, split in enumerate(splits) for part in range(split.count)]
    missing = chosen_by_first(lambda: [key for key in keys if not destination.part(key).exists()])
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    root = Path(options.dataset).expanduser()
    folder = str(root) if root.is_dir() else None
    threads = options.num_workers or default_threads(accelerator.num_processes)
    rows = prepared_rows(splits, mine, CenterTransform(settings), folder, threads)
    counted = _count_bad(options, destination, splits, alone=accelerator.num_processes == 1)
    work = _Work(backbone, accelerator, destination, splits, label, options, counted)
    there = sorted({*keys} - {*missing})  # counted first, so that they are not computed again after a stop
    all_or_none(lambda: _count_parts(counted, destination, there))
    group = patient_group() if process_count() > 1 else None  # one process may have hours more to do than another
    known = [splits[number].images_of(part) for number, part in mine]
    total = None if None in known else sum(count or 0 for count in known)
    computed = all_or_none(lambda: work.run(rows, total), group)
    chosen_by_first(lambda: _check_all(_count_bad(options, destination, splits, alone=False), destination, keys), group)
    count, bad = chosen_by_first(lambda: merge(destination, keys), group)
    return Embedded(
        [destination.output, *([destination.table_file] if npy else [])],
        count,
        columns,
        [split.name for split in splits],
        bad,
        int(accelerator.reduce(torch.tensor(computed, device=accelerator.device), "sum").item()),
        time.monotonic() - started,
    )


class _Work:
    """The loop of one process over the images of its parts."""

    def __init__(
        self,
        backbone: StageFeatures,
        accelerator: Any,
        destination: Destination,
        splits: list[SplitRows],
        label: Label,
        options: EmbedOptions,
        counted: BadImageCount,
    ) -> None:
        self.backbone, self.accelerator, self.destination = backbone, accelerator, destination
        self.splits, self.label, self.options = splits, label, options
        self.stages = list(destination.plan["stages"])
        self.computed = 0
        self._counted = counted

    def run(self, rows: Any, total: int | None = None) -> int:
        """Embed all rows and write a part at each end mark; return the number of images that were embedded.

        It ends early if another process has stopped, and tells the others if it stops itself.

        Args:
            rows: From `prepared_rows`.
            total: Number of images in them; None if unknown.
        """
        try:
            with progress(None, "embeddings", total) as bar:
                return self._run(rows, bar)
        except Known:
            self.destination.stopped.touch()
            raise

    @torch.inference_mode()
    def _run(self, rows: Any, bar: Any) -> int:
        waiting: list[Prepared] = []
        done: list[tuple[list[Prepared], dict[str, Tensor]]] = []
        bad: list[list[str]] = []
        for row in rows:
            bar.update(int(row.name is not None))
            if row.pixels is not None:
                waiting.append(row)
            elif row.name is not None:
                bad.append([row.name, row.reason])
            if waiting and (row.name is None or len(waiting) == self.options.batch_size):
                done.append((waiting, self._features(waiting)))
                waiting = []
            if row.name is None:
                self._write(row.key, done, bad)
                done, bad = [], []
                if self.destination.stopped.exists():
                    break
        return self.computed

    def _features(self, rows: list[Prepared]) -> dict[str, Tensor]:
        pixels = torch.stack([row.pixels for row in rows if row.pixels is not None])
        with self.accelerator.autocast():
            features = pooled_features(self.backbone, pixels, self.accelerator.device)
        if ALL_STAGES in self.stages:
            features = with_all_stages(features, normalise=self.options.normalize)
            features.setdefault(ALL_STAGES, next(iter(features.values())))
        check_finite(features)
        self.computed += len(rows)
        if self.options.normalize:
            features = {name: torch.nn.functional.normalize(values, dim=1) for name, values in features.items()}
        return {name: features[name] for name in self.stages}

    def _write(self, key: tuple[int, int], done: list[tuple[list[Prepared], dict[str, Tensor]]], bad: Any) -> None:
        rows = [row for batch, _ in done for row in batch]
        widths = self.destination.plan["stages"]
        columns: dict[str, Any] = {
            name: torch.cat([features[name] for _, features in done] or [torch.empty(0, widths[name])]).numpy()
            for name in self.stages
        }
        columns["id"] = [row.name for row in rows]
        columns["split"] = [self.splits[key[0]].name] * len(rows)
        if self.label.column is not None:
            names = self.splits[key[0]].label.names
            columns["label_name"] = [_name_of(row.label, names) for row in rows]
            columns["label"] = [
                int(row.label)
                if isinstance(row.label, bool)
                else (self.label.names.index(name) if name is not None else row.label)
                for row, name in zip(rows, columns["label_name"], strict=True)
            ]
        write_part(self.destination, key, columns, bad)
        _count_part(self._counted, self.destination, len(rows) + len(bad), bad)


def _count_bad(options: EmbedOptions, destination: Destination, splits: list[SplitRows], alone: bool) -> BadImageCount:
    """Make the count of the unreadable images."""
    sizes = [None if split.names is None else len(split.names) for split in splits]
    known = [size for size in sizes if size is not None]
    size = sum(known) if len(known) == len(sizes) else None
    return BadImageCount(options.max_bad_fraction, None, size, alone, LARGER_SHARE_GOES_ON)


def _count_part(counted: BadImageCount, destination: Destination, images: int, bad: list[list[str]]) -> None:
    """Count the images of a part, with the unreadable ones, which are [id, reason]."""
    counted.record([BadImage(str(destination.plan["dataset"]), name, reason) for name, reason in bad])
    counted.count(images, len(bad))


def _count_parts(counted: BadImageCount, destination: Destination, keys: list[tuple[int, int]]) -> None:
    """Count parts that are written."""
    for key in keys:
        _count_part(counted, destination, *read_bad(destination, key))


def _check_all(counted: BadImageCount, destination: Destination, keys: list[tuple[int, int]]) -> None:
    """Compare the share of all parts of all processes with the limit."""
    _count_parts(counted, destination, keys)
    counted.finish()


def _begin(destination: Destination) -> bool:
    """Whether all is done already; if not, make the folder of the parts."""
    finished = is_finished(destination)
    if not finished:
        start(destination)
    return finished


def _columns(backbone: StageFeatures, options: EmbedOptions) -> dict[str, int]:
    """The columns of embeddings that are asked for, and their numbers of channels."""
    widths = dict(zip(backbone.stages, backbone.channels, strict=True))
    known = {**widths, ALL_STAGES: sum(widths.values())}
    default = (backbone.stages[-1],) if options.ending == ".npy" else tuple(backbone.stages)
    asked = options.stages or default
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UserError(f"the backbone has no stage {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in asked}


def _splits(options: EmbedOptions, dataset: Any) -> list[SplitRows]:
    """Open the splits that are asked for."""
    if isinstance(dataset, str):
        from ...data.sources import load_image_stream, split_names

        names = options.split or tuple(split_names(dataset))
        settings: dict[str, Any] = {"streaming": options.streaming, "trust_paths": options.trust_paths}
        opened = {
            name: load_image_stream(dataset, name, image_column=options.image_column, **settings) for name in names
        }
    elif isinstance(dataset, dict):
        names = options.split or tuple(dataset)
        missing = [name for name in names if name not in dataset]
        if missing:
            raise UserError(f"{options.dataset} has no split {missing[0]!r}; its splits are: {', '.join(dataset)}")
        opened = {name: dataset[name] for name in names}
    else:
        opened = {str(getattr(dataset, "split", None) or "train"): dataset}
    return [
        open_split(
            part,
            name,
            image_column=options.image_column,
            label_column=options.label_column,
            part_images=options.part_images,
        )
        for name, part in opened.items()
    ]


def _files(dataset: Any, splits: list[str]) -> dict[str, str | None]:
    """Split -> what tells two states of its files apart; empty for `datasets` objects."""
    from ...data.sources import data_identity

    return {split: data_identity(dataset, split) for split in splits} if isinstance(dataset, str) else {}


def _common_label(splits: list[SplitRows]) -> Label:
    """How labels are stored in the file: classes with names are matched by name, and numbered through all splits.

    Raises:
        UserError: the splits store them in different ways.
    """
    first = splits[0].label
    for split in splits[1:]:
        if (split.label.column is None) != (first.column is None) or split.label.is_text != first.is_text:
            raise UserError(
                f"splits {splits[0].name} and {split.name} store labels in different ways: name one with split"
            )
        if bool(split.label.names) != bool(first.names):
            raise UserError(
                f"of splits {splits[0].name} and {split.name} only one has names of its classes: name one with split"
            )
    names = tuple(dict.fromkeys(name for split in splits for name in split.label.names))
    return dataclasses.replace(first, names=names)


def _name_of(label: Any, names: tuple[str, ...]) -> str | None:
    """Name of a class number; None for an image without a label (-1 or None)."""
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None


def _digest(backbone: StageFeatures) -> str:
    """Hash of the weights, which tells two checkpoints of one name apart."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
