"""Options of `ladder embed`. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

from ...config.fields import check_fields, fields_of, needed, option, trust_paths_option
from ...config.image_defaults import LEAST_CROP
from ...errors import UserError

ENDINGS = (".parquet", ".npy")


@dataclass(kw_only=True)
class EmbedOptions:
    """Writing the embeddings of a data set to one file."""

    model: str = needed("Run folder, checkpoint, exported folder or Hub name; USER/NAME@REVISION too.")
    dataset: str = needed("digits, Hub data set, folder of images, Parquet files or WebDataset shards.")
    output: str = needed("File to write: .parquet (a column per stage) or .npy (one matrix).")
    stages: tuple[str, ...] | None = option(
        None, "Stages, in this order; all: their concatenation. Default: every stage; for .npy: the last one."
    )
    split: tuple[str, ...] | None = option(None, "Splits; default: every split.")
    normalize: bool = option(False, "Scale every embedding to length 1; all: every stage counts the same.")
    image_size: int | None = option(
        None, "Side of the images the network sees; default: the model's, else 224.", above=0, maximum=8192
    )
    crop_fraction: float | None = option(
        None,
        "Centre crop as a share of the resized shorter side, 1.0 cuts no border; default: the model's.",
        minimum=LEAST_CROP,
        maximum=1,
    )
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    label_column: str | None = option(None, "Column that holds the labels; default: found by its type, none is fine.")
    max_bad_fraction: float = option(
        0.01, "Share of unreadable images past which it stops; they are never in the file.", minimum=0, maximum=1
    )
    trust_paths: bool = trust_paths_option()
    streaming: bool = option(False, "Read the data while embedding instead of downloading it first.")
    batch_size: int = option(64, "Images per batch and device.", above=0)
    num_workers: int | None = option(
        None, "Threads that decode images; default: one per processor, at most 16.", minimum=0, maximum=256
    )
    part_images: int = option(
        4096, "Images per part; after an interruption, whole parts are not computed again.", above=0
    )
    mixed_precision: str = option("no", "Arithmetic of the network.", choices=("no", "fp16", "bf16"))
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; default: the best there is.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    verify: bool = option(False, "Compare the model's files with the Hub's checksums before anything is loaded.")

    def __post_init__(self) -> None:
        check_fields(self, [name for name in fields_of(EmbedOptions) if name not in ("model", "dataset", "output")])
        if self.ending not in ENDINGS:
            raise UserError(f"output {self.output}: the file must end in {' or '.join(ENDINGS)}")
        if self.stages is not None and (len(set(self.stages)) < len(self.stages) or not self.stages):
            raise UserError(f"stages must be different names; they are {', '.join(self.stages) or 'none'}")
        if self.ending == ".npy" and self.stages is not None and len(self.stages) > 1:
            raise UserError(".npy holds one matrix: name one of the stages, or all, or write .parquet")

    @property
    def ending(self) -> str:
        """The ending of the output file, in lower case."""
        return Path(self.output).suffix.lower()
