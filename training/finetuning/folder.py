"""The folder that fine-tuning ends in: checked before the work, written at once after it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import folder_written_at_once, write_record
from ..models.processor import image_processor, processor_of

RECORD = "finetuned.json"


def check_folder(output: str | Path) -> Path:
    """Check, before hours of work, that the folder may be written.

    Raises:
        UserError: it is a file, or holds something other than an earlier fine-tuning.
    """
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output {folder} is a file; choose a folder with --output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UserError(f"output folder {folder} is not empty and holds no fine-tuned model; choose another --output")
    return folder


def write_folder(
    folder: Path, save: Callable[[Path], None], model: str, image_size: int | None, record: dict[str, Any]
) -> None:
    """Write a fine-tuned model, its image processor and the record of what was done.

    Args:
        folder: The folder; it appears whole.
        save: Writes the model's own files.
        model: The pretrained model, whose mean and standard deviation the processor keeps.
        image_size: Side of the images of a classifier; None for whole images, which keep their size.
        record: What was done; JSON.
    """
    processor = processor_of(model)
    if image_size is None:
        processor = image_processor(
            processor.crop_size["height"], tuple(processor.image_mean), tuple(processor.image_std)
        )
        processor.do_resize = processor.do_center_crop = False
    elif image_size != processor.crop_size["height"]:
        processor = image_processor(image_size, tuple(processor.image_mean), tuple(processor.image_std))
    with folder_written_at_once(folder) as temporary:
        save(temporary)
        processor.save_pretrained(temporary)
        write_record(temporary / RECORD, record)
