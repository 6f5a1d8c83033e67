"""Options of `ladder explore`. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..config.fields import needed, option, trust_paths_option


@dataclass(kw_only=True)
class ExploreOptions:
    """Looking at a set of images through a backbone."""

    model: str = needed("Run folder, checkpoint, exported folder or Hub name; USER/NAME@REVISION too.")
    dataset: str = needed("digits, Hub data set, folder of images, Parquet files or WebDataset shards.")
    beside: str | None = option(None, "A second model beside the first; `untrained`: the same network, untrained.")
    split: tuple[str, ...] | None = option(None, "Splits; default: every split.")
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    label_column: str | None = option(None, "Column that holds the labels; default: found by its type, none is fine.")
    trust_paths: bool = trust_paths_option()
    output: str | None = option(None, "Folder for the embeddings, which are computed once; default: runs/explore-NAME.")
    space: str | None = option(None, "Write the page as a Hugging Face Space into this folder instead of showing it.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for every one of this machine.")
    port: int = option(7860, "Port to listen on; 0 for any that is free.", minimum=0, maximum=65535)
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; default: the best there is.")
