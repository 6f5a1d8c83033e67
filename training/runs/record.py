"""What a run writes about itself: the content of `run.json`, its reader and its writer."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from ..errors import LevelCollapsed, TrainingStopped, UserError
from ..files import write_record

RUN_FILE = "run.json"
VERSION = 1
"""Of the format. Files without a version are older than 1; the keys that both have mean the same."""

RUNNING, FINISHED, STOPPED, INTERRUPTED = "running", "finished", "stopped", "interrupted"
IMPORTED = "imported"
"""Status of a folder whose weights were not trained here."""


class _Record:
    """A dataclass that is a JSON object on disk. Keys that are no field of it are kept in `extra`."""

    extra: dict[str, Any]

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Self:
        """Make a record from a JSON object.

        Args:
            content: The object. Missing keys take their default.
            where: The file, for the message.

        Raises:
            UserError: a value has a type that this field never has.
        """
        hints = get_type_hints(cls)
        kind: Any = cls  # each subclass is a dataclass, which this base cannot say
        names = {item.name for item in fields(kind)} - {"extra"}
        values = {}
        for name in names & content.keys():
            value = content[name]
            if not _has_type(value, hints[name]):
                raise UserError(f"{where}: {name} cannot be {value!r}; correct it, or choose another --output")
            values[name] = _nested(hints[name], value, where)
        record: Self = kind(**values, extra={name: value for name, value in content.items() if name not in names})
        return record

    def to_json(self) -> dict[str, Any]:
        """The JSON object: the fields in their order, then what `extra` holds."""
        kind: Any = type(self)
        content = {item.name: getattr(self, item.name) for item in fields(kind) if item.name != "extra"}
        for name, value in content.items():
            if isinstance(value, _Record):
                content[name] = value.to_json()
            elif isinstance(value, list):
                content[name] = [part.to_json() if isinstance(part, _Record) else part for part in value]
        return content | self.extra


@dataclass
class RecipeRecord(_Record):
    """The recipe of a run.

    Attributes:
        name: None if the run was started from Python, without a recipe.
        text: As the user wrote it, without secrets.
        values: Every field that was set, resolved.
        extra: Keys of the file that this version does not know.
    """

    name: str | None = None
    text: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class DatasetRecord(_Record):
    """One training data set of a run.

    Attributes:
        name: As the user gave it.
        hub: Its name on the Hub, or None.
        split: Name of the split.
        revision: The full commit if the Hub could be asked, otherwise the revision that was asked for.
        fingerprint: Of the `datasets` object.
        images: Number of images; None for a stream.
        extra: Keys of the file that this version does not know.
    """

    name: str = ""
    hub: str | None = None
    split: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    images: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunRecord(_Record):
    """What a run writes about itself.

    Attributes:
        version: Version of this format.
        status: "running", "finished", "stopped" (it must not go on), "interrupted" (the same command goes on) or
            "imported".
        reason: Why the run stopped or was interrupted, or None.
        stopped_by: Kind of that exception (`TrainingStopped.kind`), for example "collapse", or None.
        method: "ladder", "byol" or "simsiam".
        license: Licence of the weights.
        title: Title of the card.
        recipe: What was asked for.
        seed: Of all random draws.
        datasets: The training images.
        best: "step", "metric" and "value" of the step whose weights are published, if that is the best step's.
        images_seen: Images trained on so far; one that was seen twice counts twice.
        monitoring_images: Held-out images that the looks during training measure; 0 if there are none.
        steps: Optimizer steps so far.
        batch_size: Images per optimizer step, over all devices.
        seconds: Seconds of training, over all starts.
        cpu_seconds: Processor time of that, in seconds: this process and its finished workers, over all cores.
        hardware: The devices that computed, in one line.
        versions: Package name to version, at the first start.
        resumed_with: For each start with other versions: "step", and "versions" with the packages that differ.
        git_commit: Commit of this package's source, or None.
        started: When the run began (ISO 8601, UTC).
        finished: When it ended (ISO 8601, UTC), or None.
        command: The command of the last start, in one line.
        starts: How often the command was given.
        imported: Where weights are from that were not trained here: "kind" of names, "file", "sha256", "prefix",
            "left_out", "padding" and "notes". None for a run.
        started_from: The weights that training began with: "model", "license", "imported" and "weights" (a hash of
            them), which may be None. None for a new network.
        extra: Keys of the file that this version does not know; they are written back as they were.
    """

    version: int = VERSION
    status: str = RUNNING
    reason: str | None = None
    stopped_by: str | None = None
    method: str | None = None
    license: str | None = None
    title: str | None = None
    recipe: RecipeRecord = field(default_factory=RecipeRecord)
    seed: int | None = None
    datasets: list[DatasetRecord] = field(default_factory=list)
    best: dict[str, Any] | None = None
    images_seen: int = 0
    monitoring_images: int = 0
    steps: int = 0
    batch_size: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    hardware: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    resumed_with: list[dict[str, Any]] = field(default_factory=list)
    git_commit: str | None = None
    started: str | None = None
    finished: str | None = None
    command: str | None = None
    starts: int = 0
    imported: dict[str, Any] | None = None
    started_from: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str) -> Self | None:
        """Read a folder's `run.json`, of this version, an older or a newer one.

        Returns:
            The record, or None if there is no such file.

        Raises:
            UserError: the file is there but does not describe a run.
        """
        record = cls.read_beside_weights(folder)
        path = Path(folder) / RUN_FILE
        if record is None and path.exists():
            raise UserError(f"{path} does not describe a run; choose another --output")
        return record

    @classmethod
    def read_beside_weights(cls, folder: str | os.PathLike[str]) -> Self | None:
        """Read the `run.json` of a folder with weights of any origin, which may be another program's.

        Returns:
            The record, or None if there is no such file or it does not describe a run of this package.

        Raises:
            UserError: the file is there but is no JSON, or describes a run with a value that it cannot have.
        """
        path = Path(folder) / RUN_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); choose another --output") from error
        if not isinstance(content, dict) or "recipe" not in content:
            return None
        record = cls.from_json({"version": 0, **content}, str(path))
        if record.version < 1 and record.status == STOPPED:
            # The first files told the kind of a stop by its message only.
            collapsed = "has collapsed" in (record.reason or "")
            record.stopped_by = LevelCollapsed.kind if collapsed else TrainingStopped.kind
        record.version = max(record.version, VERSION)
        return record

    def write(self, folder: Path | str) -> None:
        """Write a folder's `run.json` in one step, without secrets."""
        write_record(Path(folder) / RUN_FILE, self.to_json())

    def stop(self, error: TrainingStopped) -> None:
        """Record that this exception ended the run."""
        self.status, self.reason, self.stopped_by = STOPPED, str(error), error.kind

    def interrupt(self, reason: str) -> None:
        """Record that the run ended early, and that the same command goes on.

        Args:
            reason: Name of the signal, or the message of the error.
        """
        self.status, self.reason, self.stopped_by = INTERRUPTED, reason, None

    def start(self, command: str) -> None:
        """Record that the run starts or goes on."""
        self.status, self.reason, self.stopped_by = RUNNING, None, None
        self.command, self.starts = command, self.starts + 1


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a JSON value may stand in a field of this type; the content of a dictionary is not checked."""
    if isinstance(hint, UnionType):
        return any(_has_type(value, part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is list:
        return isinstance(value, list) and all(_has_type(part, get_args(hint)[0]) for part in value)
    if is_dataclass(kind):
        return isinstance(value, dict)
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _nested(hint: Any, value: Any, where: str) -> Any:
    """A field's value, with JSON objects turned into the records that the type names."""
    if isinstance(hint, type) and issubclass(hint, _Record):
        return hint.from_json(value, where)
    if get_origin(hint) is list:
        return [_nested(get_args(hint)[0], part, where) for part in value]
    return value
