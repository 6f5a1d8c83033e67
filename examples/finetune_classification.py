"""Fine-tune a pretrained backbone for classification from Python; `ladder finetune classification` does the same.

    python examples/finetune_classification.py --model runs/digits --dataset digits --output_dir runs/finetuned

The data set is anything `ladder` reads (a Hub name, an image folder, Parquet files, digits) with labels. The folder
holds a classifier that transformers loads without this package.
"""

import sys
from typing import Any

from transformers import pipeline

from ladder_training.cli.entry import main as ladder
from ladder_training.finetuning.run import finetune


def fine_tune(model: str, dataset: str, output: str, **settings: Any) -> dict[str, float]:
    """Fine-tune and score.

    Args:
        model: Run folder, exported folder or Hub name of a backbone.
        dataset: Labelled images; classes of the two splits are matched by name.
        output: Folder for the classifier.
        **settings: Fields of `FinetuneClassificationOptions`, such as `epochs` or `learning_rates`.

    Returns:
        Metrics of the scored split.
    """
    result = finetune("classification", model, dataset, output, **settings)
    print(result.table())
    # From here on it is plain transformers.
    classifier = pipeline("image-classification", model=output)
    print(f"{output}: {type(classifier.model).__name__} with {classifier.model.config.num_labels} classes")
    return result.metrics["fine_tuned"]


def main(words: list[str] | None = None) -> int:
    """Fine-tune as `ladder finetune classification` does with the same words.

    Args:
        words: Of the command line; default: those of the process. `--report_to none` is taken too: nothing is reported.

    Returns:
        The exit code of the command.
    """
    given = list(sys.argv[1:] if words is None else words)
    if "--report_to" in given:
        place = given.index("--report_to")
        if given[place + 1 : place + 2] == ["none"]:
            del given[place : place + 2]
    return ladder(["finetune", "classification", *given])


if __name__ == "__main__":
    sys.exit(main())
