"""`ladder import`: weights of other libraries as a folder that every command takes."""

import hashlib
from pathlib import Path

from ..errors import UserError
from ..files import folder_written_at_once, write_record
from ..loading.progress import say
from ..models.foreign import ForeignResNet, convert_resnet, read_tensors
from ..models.processor import image_processor
from ..runs.record import IMPORTED, RUN_FILE, RunRecord
from ..runs.run_folder import now, versions
from .keys import torchvision_key

FACTS = ("version", "status", "license", "recipe", "imported", "hardware", "versions", "finished")
"""What `run.json` says of imported weights. Steps, time and data of their training are not known: they are absent."""


def import_weights(
    file: str | Path,
    output: str | Path,
    *,
    prefix: str | None = None,
    image_size: int = 224,
    licence: str | None = None,
) -> ForeignResNet:
    """Convert a file of weights and write a native backbone, its image processor, and in `run.json` where it came from.

    What is done is said on stderr.

    Args:
        file: .safetensors, .npz, a PyTorch file of weights, or DeepMind's .pkl; no code in it is run.
        output: New folder.
        prefix: What stands before the backbone's names; None finds it.
        image_size: Side of the images in pixels.
        licence: Of the weights; None takes the one that the source is known to have.

    Raises:
        UserError: the file holds no plain ResNet, or the folder is not empty.
    """
    path, folder = Path(file).expanduser(), Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"output {folder} exists already; choose another --output")
    say(f"reading the weights {path} ...")
    found = convert_resnet(read_tensors(path), prefix, torchvision_key)
    found.licence = licence or found.licence
    with path.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
    record = RunRecord(
        status=IMPORTED,
        license=found.licence or "other",
        versions=versions(),
        finished=now(),
        imported={
            "kind": found.source,
            "file": path.name,
            "sha256": checksum,
            "prefix": found.prefix,
            "left_out": found.left_out,
            "padding": found.padding,
            "notes": found.notes,
        },
    ).to_json()
    say(f"writing the backbone to {folder} ...")
    with folder_written_at_once(folder) as temporary:
        found.backbone.save_pretrained(temporary)
        image_processor(image_size).save_pretrained(temporary)
        write_record(temporary / RUN_FILE, {name: record[name] for name in FACTS})
    return found
