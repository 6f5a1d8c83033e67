"""Fine-tune a pretrained backbone for classification from Python; `ladder finetune classification` does the same.

    python examples/finetune_classification.py runs/digits digits runs/finetuned

The data set is anything `ladder` reads (a Hub name, an image folder, Parquet files, digits) with labels. The folder
holds a classifier that transformers loads without this package.
"""

import sys
from typing import Any

from transformers import pipeline

from ladder_training.finetuning.run import finetune


def main(model: str, dataset: str, output: str, **settings: Any) -> dict[str, float]:
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


if __name__ == "__main__":
    main(*sys.argv[1:4])
