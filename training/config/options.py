"""Our own options, as plain dataclasses: the fields of a recipe besides those of transformers' TrainingArguments.

Nothing heavy is imported here, because `ladder --help` lists these fields in under a second.
"""

from dataclasses import dataclass
from typing import Any

from .backbones import BACKBONES
from .fields import image_range_option, option, trust_paths_option
from .image_defaults import DEFAULT_IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD

METHODS = ("ladder", "byol", "simsiam")
OPTIMIZERS = ("lars", "sgd", "adamw")
Number = float | int


@dataclass
class DataOptions:
    """Where the images come from."""

    dataset: str | list[str] | None = option(
        None, "Hub data set name, folder of images, Parquet files, WebDataset shards, or `digits`; may be given twice."
    )
    mix: list[float] | None = option(None, "Mixing weights, one per data set; default: by size.", above=0)
    split: str = option("train", "Split to train on.")
    revision: str | None = option(None, "Branch, tag or commit of a Hub data set.")
    streaming: bool = option(False, "Read the data while training instead of downloading it first.")
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    label_column: str | None = option(None, "Column that holds the labels used for monitoring; default: found by type.")
    eval_dataset: str | None = option(
        None, "Data set for monitoring; default: the validation or test split, or 1 % of the training images held out."
    )
    shuffle_buffer: int = option(2048, "Undecoded examples each worker holds to shuffle a stream.", minimum=1)
    max_bad_fraction: float = option(0.01, "Share of unreadable images past which the run stops.", minimum=0, maximum=1)
    image_range: list[float] | None = image_range_option()
    trust_paths: bool = trust_paths_option()
    accept_changed_data: bool = option(False, "Go on with a run although its data set has changed since its start.")


@dataclass
class ModelOptions:
    """The network and its levels; a field left out takes the default of `LadderSiameseConfig`."""

    method: str = option("ladder", "byol and simsiam have one global level, on the last stage.", choices=METHODS)
    backbone: str | None = option(
        None, f"{', '.join(BACKBONES)}, timm/NAME, or USER/NAME for the config of a model; weights come with --from."
    )
    backbone_config: dict[str, Any] | None = option(None, "Any transformers backbone, e.g. {model_type: resnet, ...}.")
    level_names: list[str] | None = option(None, "Stages that get a loss.")
    level_losses: list[str] | None = option(
        None, "global, local, region or both, or a sum such as global+region, one per level."
    )
    level_weights: list[Number] | None = option(None, "Weight of each level's loss.", minimum=0)
    projection_hidden_size: int | None = option(
        None, "Width of the hidden layer of the last level's global heads.", minimum=1
    )
    lower_projection_hidden_size: int | None = option(None, "The same, of the other levels.", minimum=1)
    projection_size: int | None = option(None, "Width of the projections.", minimum=1)
    local_projection_hidden_size: int | None = option(None, "Width of the hidden layer of the local heads.", minimum=1)
    local_matching: str | None = option(None, "How positions are matched.", choices=("location", "feature"))
    local_grid_size: int | None = option(None, "Points per side of the matched grid.", minimum=1)
    base_momentum: float | None = option(None, "tau at step 0; it rises to 1 on a cosine.", minimum=0, maximum=1)
    detach_stages: bool | None = option(None, "Keep the gradient of each level in its own stage: an ablation.")
    from_model: str | None = option(
        None, "Start from this backbone or pretraining checkpoint: a folder or USER/NAME, also USER/NAME@REVISION."
    )
    verify: bool = option(False, "Compare the files of --from with the Hub's checksums before anything is loaded.")


@dataclass
class ViewOptions:
    """How the two views of an image are made."""

    image_size: int = option(DEFAULT_IMAGE_SIZE, "Height and width of a view, in pixels.", minimum=2, maximum=8192)
    min_scale: float = option(0.08, "Smallest share of the image's area in a crop.", above=0, maximum=1)
    max_scale: float = option(1.0, "Largest share of the image's area in a crop.", above=0, maximum=1)
    min_ratio: float = option(3 / 4, "Smallest width / height of a crop.", above=0)
    max_ratio: float = option(4 / 3, "Largest width / height of a crop.", above=0)
    flip: float = option(0.5, "Probability of mirroring left to right.", minimum=0, maximum=1)
    jitter: float = option(0.8, "Probability of changing the colours.", minimum=0, maximum=1)
    brightness: float = option(0.4, "Largest change of the brightness factor from 1.", minimum=0)
    contrast: float = option(0.4, "Largest change of the contrast factor from 1.", minimum=0)
    saturation: float = option(0.2, "Largest change of the saturation factor from 1.", minimum=0)
    hue: float = option(0.1, "Largest turn of the hue circle, at most 0.5.", minimum=0, maximum=0.5)
    grayscale: float = option(0.2, "Probability of grey.", minimum=0, maximum=1)
    blur: list[float] = option(
        [1.0, 0.1], "Probability of a blur, for view 1 and view 2.", minimum=0, maximum=1, length=2
    )
    min_sigma: float = option(0.1, "Smallest deviation of the blur, in pixels of the view.", above=0)
    max_sigma: float = option(2.0, "Largest deviation of the blur.", above=0)
    solarize: list[float] = option(
        [0.0, 0.2], "Probability of solarizing, for view 1 and view 2.", minimum=0, maximum=1, length=2
    )
    image_mean: list[float] = option(
        list(IMAGENET_MEAN), "Mean per channel, of values in [0, 1].", minimum=-1e6, maximum=1e6, length=3
    )
    image_std: list[float] = option(list(IMAGENET_STD), "Standard deviation per channel.", above=0, length=3)
    device_views: bool = option(False, "Change colours, blur and normalise on the device, not in the workers.")


@dataclass
class TrainingOptions:
    """Fields of `LadderTrainingArguments` that transformers' TrainingArguments does not have."""

    optimizer: str = option("lars", "sgd and adamw are torch's own; all have the same groups.", choices=OPTIMIZERS)
    base_learning_rate: float | None = option(
        None, "Learning rate for 256 images; learning_rate becomes base * global batch / 256.", minimum=0
    )
    momentum: float = option(0.9, "Momentum of LARS or SGD.", minimum=0, below=1)
    lars_eta: float = option(1e-3, "Trust coefficient of LARS.", minimum=0)
    warmup_epochs: float | None = option(
        None, "Linear warm-up in passes over the data; replaces warmup_steps.", minimum=0
    )
    sync_batch_norm: bool = option(True, "Share batch-norm statistics among processes, in both networks.")
    channels_last: bool = option(True, "Channels-last memory format for convolutional backbones.")
    monitor_steps: int | None = option(
        None, "Steps between two looks at the held-out images; default: a tenth of the run; 0 turns it off.", minimum=0
    )
    monitor_images: int = option(2000, "Most held-out images a look uses.", minimum=2)
    knn_neighbours: int = option(20, "Neighbours that vote in the monitoring kNN.", minimum=1)
    knn_temperature: float = option(0.1, "Temperature of the vote.", above=0)
    stop_on_collapse: bool = option(True, "Stop, naming the stage, when projections collapse to a point.")
    collapse_threshold: float = option(
        0.1,
        "Collapse: standard deviation of the normalised projection below this share of 1/sqrt(d).",
        minimum=0,
    )


@dataclass
class RunOptions:
    """Where the run is written, and what its card says."""

    output: str | None = option(None, "Folder of the run.")
    license: str = option("other", "Licence of the published weights.")
    card_images: bool = option(False, "Show held-out images in the card's figures; they are published with it.")
    run_name_for_card: str | None = option(None, "Title of the card; default: the folder's name.")
