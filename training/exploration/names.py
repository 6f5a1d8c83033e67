"""What `ladder explore` calls models and data sets on its page and in the names of its files."""

from pathlib import Path

from ..files import short_file_name


def short_name(reference: str) -> str:
    """What the page calls a model: the last folder of a path, a Hub name as it is."""
    path = Path(reference).expanduser()
    return path.resolve().name if path.is_dir() else reference


def embeddings_file(model: str) -> str:
    """Name of the file with the embeddings of a model."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in model).strip("-.")
    return f"{short_file_name(safe or 'model')}.parquet"
