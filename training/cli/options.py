"""Options of the commands, as plain dataclasses without heavy imports."""

from dataclasses import dataclass, field

from ..config.fields import image_range_option, needed, option, trust_paths_option
from ..export.formats import WRITERS

FORMATS = tuple(WRITERS)
OF_THE_DATA = ("split", "image_column", "label_column", "image_range", "trust_paths")
"""Settings of tasks that say how a data set is read: the command named next needs the same."""


@dataclass(kw_only=True)
class PretrainOptions:
    """Pretraining.

    Attributes:
        fields: Fields of the recipe that were typed: name -> the words after it.
    """

    recipe: str | None = option(None, "YAML file, or the name of a packaged recipe; default: a plan is made.")
    dry_run: bool = option(False, "Print the plan, or the recipe, and do not start.")
    fields: dict[str, list[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class EvaluateOptions:
    """What every evaluation task needs.

    Attributes:
        task: The task that was named.
        fields: Settings of the task that were typed: name -> the words after it.
    """

    task: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    model: str = needed("Run folder, checkpoint, exported folder or Hub name; USER/NAME@REVISION too.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    verify: bool = option(False, "Compare the model's files with the Hub's checksums before anything is loaded.")
    dataset: str = needed("digits, Hub data set, folder of images, Parquet files or WebDataset shards.")
    recipe: str | None = option(None, "YAML file with settings of the task, or the name of a packaged one.")
    test_dataset: str | None = option(None, "Data set to score, where it is not a split of --dataset.")
    output: str | None = option(None, "Folder that gets evaluation/TASK-DATASET.json; default: the run's folder.")
    seed: int = option(0, "Seed of everything random in the task.", minimum=0, maximum=2**32 - 1)
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; default: the best there is.")
    untrained: bool = option(True, "Measure the same architecture with random weights too; takes as long again.")


@dataclass(kw_only=True)
class FinetuneOptions:
    """What every fine-tuning needs.

    Attributes:
        task: The task that was named.
        fields: Settings of the task that were typed: name -> the words after it.
    """

    task: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    model: str = needed("Run folder, checkpoint, exported folder or Hub name; USER/NAME@REVISION too.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    dataset: str = needed("Labelled images: digits, Hub data set, folder, Parquet files; boxes or masks beside images.")
    test_dataset: str | None = option(None, "Data set to score, where it is not a split of --dataset.")
    output: str = needed("Folder for the fine-tuned model.")
    seed: int = option(0, "Seed of everything random in the task.", minimum=0, maximum=2**32 - 1)
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; default: the best there is.")
    untrained: bool = option(
        False, "Fine-tune the same architecture from random weights too, for a column beside; takes as long again."
    )


@dataclass(kw_only=True)
class ExportOptions:
    """Writing the backbone for another library."""

    checkpoint: str = needed("Run folder, checkpoint, exported folder or Hub name; USER/NAME@REVISION too.")
    format: str = option("transformers", f"One of {', '.join(FORMATS)}.", choices=FORMATS)
    output: str = needed("Folder for the files.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    verify: bool = option(False, "Compare the model's files with the Hub's checksums before anything is loaded.")
    image_size: int | None = option(
        None, "Side of the images, for a model without preprocessor_config.json.", minimum=2, maximum=8192
    )


@dataclass(kw_only=True)
class ImportOptions:
    """Reading weights of another library."""

    file: str = needed(".safetensors, .npz, a PyTorch file of weights or DeepMind's BYOL (.pkl); no code in it is run.")
    output: str = needed("New folder, which every command takes as a model.")
    prefix: str | None = option(None, "What stands before the backbone's names, where the file holds several networks.")
    image_size: int = option(224, "Side of the images in pixels.", minimum=2, maximum=8192)
    license: str | None = option(None, "Licence of the weights; default: that of the source, if it is known.")


@dataclass(kw_only=True)
class CardOptions:
    """Writing the model card of a run again."""

    directory: str = needed("Folder of a run.")


@dataclass(kw_only=True)
class ReportOptions:
    """Writing a run or a comparison as one page."""

    directory: str = needed("Folder of a run, also of one that is still going, or of a comparison.")
    output: str | None = option(None, "The HTML file; default: report.html in the folder.")


@dataclass(kw_only=True)
class PushOptions:
    """Publishing a run on the Hub."""

    directory: str = needed("Folder of a run.")
    repo: str = needed("USER/NAME on the Hub.")
    private: bool = option(False, "Make the repo private when it is created.")
    pretraining: bool = option(False, "Publish the full pretraining checkpoint too, to continue from.")
    revision: str | None = option(None, "Branch to push to; made from main if it does not exist.")
    tag: str | None = option(None, "Tag to put on the pushed commit.")
    message: str | None = option(None, "Commit message.")
    dry_run: bool = option(False, "Only show what would be sent, and how large it is.")


@dataclass(kw_only=True)
class InspectOptions:
    """Looking at data before training on it."""

    dataset: list[str] | None = option(None, "Data set name, folder or files, as in pretrain; may be given twice.")
    recipe: str | None = option(None, "Recipe whose views and model are used; its data set, unless --dataset is given.")
    output: str | None = option(None, "Folder for inspect.json and views.png; default: runs/inspect-NAME.")
    split: str = option("train", "Split to look at.")
    streaming: bool = option(False, "Read as a stream.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub data set.")
    image_column: str | None = option(None, "Column of the images; default: found by its type.")
    image_range: list[float] | None = image_range_option()
    trust_paths: bool = trust_paths_option()
    image_size: int | None = option(None, "Side of the views in pixels.", minimum=2, maximum=8192)
    limit: int = option(1000, "Images to decode, spread over the data set; 0 for all.", minimum=0)
    batch_size: int = option(32, "Images per batch, for the speed.", minimum=1)
    num_workers: int = option(0, "Worker processes, for the speed.", minimum=0, maximum=256)


@dataclass(kw_only=True)
class DemoOptions:
    """The tour of the package on handwritten digits."""

    directory: str = needed("Folder for the run.")
    steps: int | None = option(None, "Optimizer steps; default: the recipe's.", minimum=1)
