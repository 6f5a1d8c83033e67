"""What a preparation has done so far, so that the same command goes on, and another one is refused.

The folder holds `preparation.json` (source, options, and in the end the counts). Until the end, `.preparation/` holds
one file per finished shard, and shards are called `NAME.part`, which no reader takes for a data set.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import PARTIAL_PREFIX, fsync, holds_something, same_name, write_record
from ..loading.bad_images import BadImage

RECORD_FILE, STATE_FOLDER = "preparation.json", ".preparation"
VERSION = 1


@dataclass
class ShardRecord:
    """What became of the images of one shard.

    Attributes:
        name: File name of the shard.
        images: Images of the source.
        written: Images in the shard; if none, there is no file.
        kept: Those of them whose file is as it was.
        duplicates: Images whose file came before in this split.
        source_bytes: Bytes of all readable source files.
        written_bytes: Bytes of the images in the shard.
        bad: Images that cannot be read.
        keys: Hashes of the files of the readable images, in hexadecimal.
    """

    name: str
    images: int = 0
    written: int = 0
    kept: int = 0
    duplicates: int = 0
    source_bytes: int = 0
    written_bytes: int = 0
    bad: list[BadImage] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class PreparationFolder:
    """The folder of a preparation.

    Args:
        path: The folder; it need not exist.
        asked: Source and options, as values that JSON can hold, without those that do not change what is written.

    Attributes:
        finished: What was written in the end: split -> counts; None while something is missing.

    Raises:
        UserError: the folder holds something else, or another source or option was prepared there.
    """

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        from ladder_model_cards.secrets import hide_in_values

        self.path, self._asked = path, hide_in_values(asked)
        self._state = path / STATE_FOLDER
        self.finished: dict[str, Any] | None = None
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: not a folder; --output names the folder that gets the shards")
        record = path / RECORD_FILE
        if record.is_file():
            self._check(record)
        elif path.is_dir() and holds_something(path):
            raise UserError(f"{path}: this folder is not empty; --output takes a new one")

    def start(self) -> None:
        """Create the folder; remove what a killed process has left half-written."""
        self._write(None)  # first: a folder without it, as a full disk would leave it, is that of somebody else
        self._state.mkdir(exist_ok=True)
        for left in [*self.path.glob(".*.writing"), *self.path.glob(f"{PARTIAL_PREFIX}*")]:
            left.unlink()

    def shard(self, name: str) -> ShardRecord | None:
        """The record of a shard, or None if it is not finished."""
        file = self._state / f"{name}.json"
        if not file.is_file():
            return None
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            record = ShardRecord(**{**values, "bad": [BadImage(**bad) for bad in values["bad"]]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: cannot be read ({error!r}); delete it, and its shard is made again") from error
        there = (self.path / name).exists() or part_of(self.path / name).exists()
        return record if there or not record.written else None

    def add(self, record: ShardRecord) -> None:
        """Write down that a shard is finished."""
        write_record(self._state / f"{record.name}.json", asdict(record))

    def finish(self, records: list[ShardRecord], splits: dict[str, Any]) -> None:
        """Give the shards their names, write the counts, and remove the state.

        Args:
            records: All shards.
            splits: Split -> its counts.
        """
        for record in records:
            part = part_of(self.path / record.name)
            if part.exists():
                part.replace(self.path / record.name)
        fsync(self.path)
        self._write(splits)
        for file in self._state.iterdir():
            file.unlink()
        self._state.rmdir()

    def _write(self, splits: dict[str, Any] | None) -> None:
        write_record(self.path / RECORD_FILE, {"version": VERSION, **self._asked, "splits": splits})

    def _check(self, record: Path) -> None:
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
            version, self.finished = values.pop("version"), values.pop("splits")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{record}: cannot be read ({error!r}); --output takes a new folder") from error
        before, now = ({**value, **value.get("options", {})} for value in (values, self._asked))
        # Records of older versions do not know these two.
        before = {"files": now["files"], "trust_paths": False, **before}
        changed = [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in now
            if name not in ("options", "files") and _comparable(name, before) != _comparable(name, now)
        ]
        if before["files"] != now["files"]:
            changed.append("the files of the data set have changed since")
        if changed or version != VERSION:
            what = "; ".join(changed) or f"version {version} of the package's shards"
            raise UserError(f"{self.path} was prepared otherwise ({what}): use another --output, or delete the folder")


def _comparable(name: str, values: dict[str, Any]) -> Any:
    """A value of a record; of the data set, which may be spelt in several ways, its place."""
    return same_name(str(values.get(name))) if name == "dataset" else values.get(name)


def part_of(path: Path) -> Path:
    """The name of a finished shard while others are missing."""
    return path.with_name(path.name + ".part")
