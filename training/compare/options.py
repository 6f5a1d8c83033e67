"""Options of `ladder compare`, besides the fields of the recipe; nothing heavy is imported here."""

from dataclasses import dataclass, field

from ..config.fields import needed, option


@dataclass(kw_only=True)
class CompareOptions:
    """What is compared, and on which data.

    Attributes:
        fields: Fields of the recipe that were typed: name -> the words after it.
    """

    recipe: str = needed("YAML file, or the name of a packaged recipe.", metavar="RECIPE.yaml")
    methods: list[str] | None = option(
        None,
        "byol, ladder, simsiam, random (untrained), STAGE.KIND (one level only, e.g. stage4.global), or names of "
        "--variants; default: byol ladder.",
    )
    seeds: list[int] | None = option(
        None, "Seeds, each for every method; default: 0 1 2.", minimum=0, maximum=2**32 - 1
    )
    baseline: str | None = option(
        None, "Method that the others are compared with; default: byol, or the first where byol is not asked for."
    )
    variants: str | None = option(
        None,
        "YAML file of further methods: name -> fields of the recipe that it changes, method: among them; or "
        "{weights: FOLDER/seed-{seed}}, finished backbones that are only scored.",
    )
    evaluations: str | None = option(
        None,
        "YAML file, a list of {task, dataset, test_dataset, recipe, name, repeats, any setting}; replaces kNN and "
        "linear. repeats: times with other seeds, averaged.",
    )
    classification_dataset: list[str] | None = option(None, "Also evaluate kNN and linear on these data sets.")
    detection_dataset: list[str] | None = option(None, "Also evaluate detection on these data sets.")
    segmentation_dataset: list[str] | None = option(None, "Also evaluate segmentation on these data sets.")
    gradients: bool = option(True, "Measure the share of each level in the gradient of each stage.")
    stability: bool = option(False, "Also run short runs over learning rates and batch sizes, one seed.")
    stability_learning_rates: list[float | int] | None = option(
        None, "Peak learning rates of the short runs; default: a quarter, one and four times the recipe's.", above=0
    )
    stability_batch_sizes: list[int] | None = option(
        None, "Batch sizes of the short runs; default: 16 64 256.", above=0
    )
    stability_steps: int = option(200, "Steps of each short run.", above=0)
    jobs: int = option(
        1, "Runs at the same time, each in its own process with its share of the cores.", minimum=1, maximum=256
    )
    keep_weights: bool = option(False, "Keep checkpoint-N folders too, not only the final weights.")
    redo: bool = option(False, "Run cells anew that were made by other settings, instead of stopping there.")
    fields: dict[str, list[str]] = field(default_factory=dict)
