"""`ladder import`: converts weights of another library, and says what was taken, left out and is different."""

from ..config.shell import ladder_command
from .options import ImportOptions


def import_command(options: ImportOptions) -> int:
    """Import as the command line asks.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the file holds no plain ResNet, or the folder is not empty.
    """
    from ..export.importing import import_weights

    found = import_weights(
        options.file,
        options.output,
        prefix=options.prefix,
        image_size=options.image_size,
        licence=options.license,
    )
    config = found.backbone.config
    print(
        f"{options.output}: ResNet of {config.layer_type} blocks, depths {config.depths}, widths {config.hidden_sizes}"
    )
    print(f"read by {found.source}" + (f" below {found.prefix.rstrip('./')}" if found.prefix else ""))
    if found.left_out:
        print(f"left out: {len(found.left_out)} tensors that are no part of the backbone, such as {found.left_out[0]}")
    print(f"licence: {found.licence or 'not known; ask whoever published the weights, and give it with --license'}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"next: {ladder_command('evaluate knn', model=options.output, dataset='LABELLED_DATASET')}")
    return 0
