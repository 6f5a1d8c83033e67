"""Fine-tune a pretrained backbone for classification with the stock transformers Trainer.

    ladder export runs/digits --format transformers --output backbone
    python examples/finetune_classification.py --model backbone --dataset digits --output_dir runs/finetuned \
        --num_train_epochs 5 --learning_rate 1e-3

The data set is anything `ladder` reads (a Hub name, an image folder, Parquet files, digits) with labels. Every field of
transformers' TrainingArguments can be given.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torchvision.transforms import v2
from transformers import (
    AutoImageProcessor,
    HfArgumentParser,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ladder_training import load_image_stream
from ladder_training.data.columns import find_image_column, find_label_column
from ladder_training.errors import UserError
from ladder_training.evaluation.classes import ClassIndex
from ladder_training.images.decode import decode_image


@dataclass
class FinetuneArguments:
    """What is fine-tuned on what."""

    model: str = field(metadata={"help": "Folder or Hub name of an exported backbone."})
    dataset: str = field(metadata={"help": "Labelled images: Hub name, image folder, Parquet files, or digits."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="test", metadata={"help": "Split to score."})
    crop_scale: float = field(default=0.35, metadata={"help": "Smallest area of a random crop."})
    flip: bool = field(default=True, metadata={"help": "Flip at random; not for digits and letters."})


class Accuracy(evaluate.Metric):
    """Share of right answers, as a local `evaluate` metric: `evaluate.load` would ask the Hub for code."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(
            description="Accuracy", citation="", inputs_description="Class indices.", features=features
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


def load_classifier(name: str, labels: list[str]) -> ResNetForImageClassification:
    """The backbone with a new classifier.

    transformers' ResNet takes any keyword in `forward`, so that Trainer believes that the model divides its loss by
    the number of items of all micro-batches. It does not: with k accumulation steps the loss and the gradients would
    be k times too large. `accepts_loss_kwargs = False` says so, before the Trainer looks.

    Args:
        name: Folder or Hub name of the backbone.
        labels: Names of the classes.
    """
    model = ResNetForImageClassification.from_pretrained(
        name,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
    )
    model.accepts_loss_kwargs = False
    return model


def transforms(processor: Any, crop_scale: float, flip: bool) -> tuple[v2.Compose, v2.Compose]:
    """Transforms of training and of scored images: uint8 picture to float32 (3, size, size)."""
    size = processor.crop_size["height"]
    shorter = processor.size["shortest_edge"]
    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(processor.image_mean, processor.image_std)]
    crop = v2.RandomResizedCrop(size, scale=(crop_scale, 1.0), antialias=True)
    train = [v2.ToImage(), crop, v2.RandomHorizontalFlip(0.5 if flip else 0.0), *end]
    return v2.Compose(train), v2.Compose([v2.ToImage(), v2.Resize(shorter, antialias=True), v2.CenterCrop(size), *end])


def label_column(dataset: datasets.Dataset, split: str) -> str:
    """The column of the labels."""
    found = find_label_column(dataset)
    if found is None:
        raise UserError(f"split {split} has no label column among {', '.join(dataset.column_names)}")
    return found


def with_transform(
    dataset: datasets.Dataset, transform: v2.Compose, label: str, numbers: Callable[[list[Any]], list[int]]
) -> datasets.Dataset:
    """The data set with items {"pixel_values", "labels"}, made when they are asked for.

    Args:
        dataset: With an image column.
        transform: Of its images.
        label: Column of its labels.
        numbers: Turns its labels into the class numbers of the classifier.
    """
    image = find_image_column(dataset)
    # Decoded as for pretraining: turned by EXIF, transparency on white, 16 bits scaled.
    dataset = dataset.cast_column(image, datasets.Image(decode=False))

    def make(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pixels = [transform(np.array(decode_image(picture))) for picture in rows[image]]
        return {"pixel_values": pixels, "labels": numbers(rows[label])}

    return dataset.with_transform(make)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Fine-tune and score.

    Args:
        arguments: Words of the command line; default: those of the process.

    Returns:
        Metrics of the scored split.
    """
    options, training = HfArgumentParser((FinetuneArguments, TrainingArguments)).parse_args_into_dataclasses(arguments)
    training.remove_unused_columns = False
    set_seed(training.seed)
    train = load_image_stream(options.dataset, split=options.train_split)
    scored = load_image_stream(options.dataset, split=options.eval_split)
    train_label, eval_label = label_column(train, options.train_split), label_column(scored, options.eval_split)
    # The two splits may number their classes differently, or lack one: classes are matched by name.
    classes = ClassIndex(
        train.features[train_label], scored.features[eval_label], options.train_split, options.eval_split
    )
    classes.learn(train[train_label])
    for note in classes.compare(classes.fit_numbers(train[train_label]), classes.score_numbers(scored[eval_label])):
        print(f"note: {note}")
    processor = AutoImageProcessor.from_pretrained(options.model)
    train_transform, eval_transform = transforms(processor, options.crop_scale, options.flip)
    accuracy = Accuracy()
    trainer = Trainer(
        model=load_classifier(options.model, classes.names),
        args=training,
        train_dataset=with_transform(train, train_transform, train_label, classes.fit_numbers),
        eval_dataset=with_transform(scored, eval_transform, eval_label, classes.score_numbers),
        processing_class=processor,
        compute_metrics=lambda found: accuracy.compute(
            predictions=found.predictions.argmax(axis=-1), references=found.label_ids
        ),
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    trainer.save_metrics("eval", metrics)
    print(f"accuracy on {options.eval_split}: {metrics['eval_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
