"""`ladder export`: write the online backbone of a checkpoint in the format of another library."""

from pathlib import Path

from ..errors import UserError
from ..files import folder_written_at_once
from ..loading.progress import say
from ..models.processor import processor_of
from ..models.reference import load_model, model_folder, with_revision
from .alternatives import formats_that_hold
from .formats import WRITERS
from .keys import NotHeld
from .origin import CARD, write_origin


def export(
    checkpoint: str,
    format: str,
    output: str | Path,
    revision: str | None = None,
    image_size: int | None = None,
    source: str | None = None,
) -> str:
    """Write the online backbone of a checkpoint, and say on stderr what is done.

    Args:
        checkpoint: Run folder, checkpoint, exported folder or Hub name.
        format: A key of `WRITERS`.
        output: Folder for the files. Other files in it stay.
        revision: Branch, tag or commit of a Hub repo.
        image_size: Side of the images in pixels; replaces that of the model's preprocessor_config.json.
        source: What the folder names as the model it is from, and whose licence it takes; default: the checkpoint.

    Returns:
        A line of Python that loads the result.

    Raises:
        UserError: there is no such model, the library cannot represent the backbone, or `output` is a file or holds
            something other than an export.
    """
    from modeling_ladder import native_backbone

    output = Path(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file; choose a folder with --output")
    if output.is_dir() and any(output.iterdir()) and not _was_exported(output):
        raise UserError(f"output folder {output} is not empty and holds no export; choose another --output")
    model_folder(checkpoint)  # a mistake is said before anything else is
    say(f"reading the model {checkpoint} ...")
    backbone = native_backbone(load_model(checkpoint, revision))
    processor = processor_of(checkpoint, image_size, revision)
    say(f"writing its backbone for {format} to {output} ...")
    with folder_written_at_once(output) as folder:
        try:
            hint = WRITERS[format](backbone, processor, folder)
        except NotHeld as error:
            raise UserError(f"{error}; use {' or '.join(formats_that_hold(backbone, processor, format))}") from error
        write_origin(folder, format, source or with_revision(checkpoint, revision), (output / CARD).exists())
    return hint.format(folder=str(output))


def _was_exported(folder: Path) -> bool:
    """Whether a folder holds an earlier export, which may be overwritten, and not a run."""
    names = {path.name for path in folder.iterdir()}
    return "run.json" not in names and bool(names & {"model.safetensors", "model.pkl", "model.onnx"})
