"""`ladder export`: writes the backbone for another library and prints how to load it."""

from ..config.shell import ladder_command
from ..export.backbone import export
from ..loading.progress import say
from ..models.reference import with_revision
from ..models.verification import verified
from .options import ExportOptions


def export_command(options: ExportOptions) -> int:
    """Export as the command line asks, and print how to load the result.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such model, or it cannot be exported to the format.
    """
    checkpoint, revision = options.checkpoint, options.revision
    source = with_revision(checkpoint, revision)
    if options.verify:
        say(f"comparing the files of {checkpoint} with the Hub's checksums ...")
        checkpoint, revision = verified(checkpoint, revision), None
    hint = export(checkpoint, options.format, options.output, revision, options.image_size, source)
    print(f"{options.format} backbone written to {options.output}; load it with\n  {hint}")
    known = {"model": source, "dataset": "LABELLED_DATASET", "output": "DIR"}
    print(f"next: {ladder_command('finetune classification', **known)}")
    return 0
