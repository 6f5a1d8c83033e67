"""`ladder embed`: writes the embeddings of a data set, and says what is in the file."""

from ..config.shell import ladder_command
from ..data.left_out import is_first_process
from ..errors import said_once_per_machine
from ..evaluation.embedding.options import EmbedOptions
from ..models.reference import model_folder, with_revision
from ..models.verification import verified

SHOWN = 3


def embed_command(options: EmbedOptions) -> int:
    """Embed as the command line asks.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such model or data set, or the output holds something else.
    """
    if is_first_process():
        print(f"embedding {options.dataset} with {options.model}", flush=True)
    with said_once_per_machine():
        folder = with_revision(model_folder(options.model), options.revision)
    if options.verify:
        folder = verified(folder)

    # torch is imported only once the options are known to be right.
    from ..evaluation.embedding.task import embed
    from ..runs.agreement import chosen_by_first

    found = embed(options, folder)
    chosen_by_first(lambda: _say(options, found))
    return 0


def _say(options: EmbedOptions, found: object) -> None:
    """Say what was written. Only the first process does."""
    from ..evaluation.embedding.task import Embedded

    if not isinstance(found, Embedded):
        print(f"{options.output} holds these embeddings already; nothing to do")
        return
    columns = ", ".join(f"{name} ({width})" for name, width in found.widths.items())
    reused = found.count - found.computed
    print(f"{found.count} images of {', '.join(found.splits)}; {columns}; {found.seconds:.1f} s")
    if reused > 0:
        print(f"{reused} of them were there from an earlier call")
    if found.bad:
        shown = "; ".join(f"{name}: {reason}" for name, reason in found.bad[:SHOWN])
        more = "; ..." if len(found.bad) > SHOWN else ""
        print(f"{len(found.bad)} images could not be read and are not in the file: {shown}{more}")
    for path in found.files:
        print(f"written to {path}")
    matrix = f"numpy.load({str(found.files[0])!r}), its rows with " if len(found.files) > 1 else ""
    print(f"read it with {matrix}pandas.read_parquet({str(found.files[-1])!r})")
    same = {name: getattr(options, name) for name in ("split", "image_column", "label_column", "trust_paths")}
    explore = ladder_command(
        "explore", model=with_revision(options.model, options.revision), dataset=options.dataset, **same
    )
    print(f"next: {explore}  (neighbours, duplicates, a map)")
