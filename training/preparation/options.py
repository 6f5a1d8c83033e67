"""Options of `ladder prepare`, as a plain dataclass without heavy imports."""

from dataclasses import dataclass

from ..config.fields import image_range_option, needed, option, trust_paths_option

FORMATS = ("parquet", "webdataset")


@dataclass(kw_only=True)
class PrepareOptions:
    """What is prepared, and how."""

    dataset: str = needed("Data set name, folder or files, as in pretrain.")
    output: str = needed("New folder for the shards.")
    format: str = option("parquet", "parquet or webdataset.", choices=FORMATS)
    short_side: int = option(
        320, "Images whose shorter side has more pixels are made smaller.", minimum=1, maximum=65500
    )
    quality: int = option(90, "JPEG quality of what is written anew, 1 to 100.", minimum=1, maximum=100)
    workers: int | None = option(
        None, "Images that are prepared at the same time; default: the number of cores.", minimum=1, maximum=256
    )
    split: list[str] | None = option(None, "Splits to prepare; default: all.")
    streaming: bool = option(False, "Read the source as a stream: nothing is downloaded first; its order is kept.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub data set.")
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    image_range: list[float] | None = image_range_option()
    trust_paths: bool = trust_paths_option()
    max_bad_fraction: float = option(
        1.0,
        "Share of a split's images that may be unreadable before it stops; default: no limit, they are left out and "
        "listed.",
        minimum=0,
        maximum=1,
    )
    drop_columns: list[str] | None = option(None, "Columns to leave out, such as boxes, which would no longer fit.")
    drop_duplicates: bool = option(False, "Write an image once if its file comes several times in a split.")
    shuffle: bool = option(True, "Write each split in a random order, the same every time, not in the source's.")
    shard_images: int | None = option(None, "Images per shard; default: 2,000, or a 64th of a small split.", minimum=1)
