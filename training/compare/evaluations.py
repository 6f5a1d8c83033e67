"""The evaluations of a comparison: those the user listed, or by default kNN and linear on the recipe's data."""

import functools
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..config.fields import check_values, fields_of, needed, option, unknown_name
from ..config.recipe import ResolvedRecipe
from ..config.values import read_yaml
from ..errors import UserError
from ..evaluation.options import TASK_OPTIONS, read_options, read_recipe
from ..evaluation.report import file_name
from .fingerprints import data_name
from .options import CompareOptions

# Settings that do not change a result.
FREE_SETTINGS = frozenset({"num_workers"})
# Added to the seed for each repeat of an evaluation, so that no repeat has the seed of another run.
REPEAT_STRIDE = 1000
_CLASSIFICATION = ("knn", "linear")


@dataclass(kw_only=True)
class ListedEvaluation:
    """The fields of an entry of the evaluations file, besides the settings of its task."""

    task: str = needed("A key of `TASK_OPTIONS`.")
    dataset: str = needed("Data set to fit on, and to score if there is no test_dataset.")
    test_dataset: str | None = option(None, "Data set to score instead of a split of dataset.")
    recipe: str | None = option(None, "YAML file with settings of the task, or the name of a packaged one.")
    name: str | None = option(None, "Name of the row in the table; default: TASK-DATASET.")
    repeats: int = option(
        1, "Times that the evaluation is done, each with other seeds; the table shows the mean.", minimum=1
    )


@dataclass(frozen=True)
class Evaluation:
    """One task on one data set, with the same settings for every method and seed.

    Attributes:
        row: Name of its row in the table; TASK-DATASET if the user gave none. Its repeats have the same name.
        task: A key of `TASK_OPTIONS`.
        dataset: Data set to fit on, and to score if there is no `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        settings: Fields of the task's options that were set.
        by_default: Whether the user did not ask for it. Then it is left out if the data has no labels.
        repeat: Number of the repeat, each with another seed; 0 for the first.
    """

    row: str
    task: str
    dataset: str
    test_dataset: str | None
    settings: dict[str, Any]
    by_default: bool = False
    repeat: int = 0

    @property
    def key(self) -> str:
        """Name of its cells."""
        return f"{self.row}-repeat-{self.repeat}" if self.repeat else self.row

    def seed(self, run_seed: int) -> int:
        """Return the seed of the task: the run's own, and another one for each repeat."""
        return run_seed + self.repeat * REPEAT_STRIDE

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the result, besides the weights."""
        settings = asdict(read_options(TASK_OPTIONS[self.task], self.settings))
        return {
            "task": self.task,
            "dataset": data_name(self.dataset),
            "test_dataset": data_name(self.test_dataset),
            **{name: value for name, value in settings.items() if name not in FREE_SETTINGS},
            **({"repeat": self.repeat} if self.repeat else {}),
        }

    def defaults(self) -> dict[str, Any]:
        """Return the default settings, for cells that were written before a setting existed."""
        return asdict(TASK_OPTIONS[self.task]())


def planned_evaluations(options: CompareOptions, recipe: ResolvedRecipe) -> list[Evaluation]:
    """List the evaluations that a command asks for.

    Args:
        options: From the command line.
        recipe: Of one of the runs; its data is evaluated by default.

    Raises:
        UserError: the file holds no such list, a task or setting does not exist, or two evaluations have the same
            name.
    """
    planned: list[Evaluation] = []
    if options.evaluations:
        planned += _from_file(options.evaluations)
    else:
        datasets = recipe.data.dataset
        for dataset in [datasets] if isinstance(datasets, str) else datasets or []:
            settings = _reading_settings(recipe)
            planned += [_make(task, dataset, settings=settings, by_default=True) for task in _CLASSIFICATION]
    for dataset in options.classification_dataset or []:
        planned += [_make(task, dataset) for task in _CLASSIFICATION]
    planned += [_make("detection", dataset) for dataset in options.detection_dataset or []]
    planned += [_make("segmentation", dataset) for dataset in options.segmentation_dataset or []]
    asked = {evaluation.key for evaluation in planned if not evaluation.by_default}
    planned = [evaluation for evaluation in planned if not (evaluation.by_default and evaluation.key in asked)]
    keys = [evaluation.key for evaluation in planned]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"two evaluations are called {key}: give one of them a `name:` in --evaluations")
    return planned


def missing_labels(evaluation: Evaluation) -> str | None:
    """Say why classification cannot be evaluated on a data set.

    Returns:
        The reason, or None if it can be evaluated.

    Raises:
        UserError: there is no such data set.
    """
    settings = evaluation.settings
    return _missing_labels(
        evaluation.dataset, settings.get("split"), settings.get("label_column"), bool(settings.get("streaming"))
    )


@functools.cache
def _missing_labels(dataset: str, split: str | None, label_column: str | None, streaming: bool) -> str | None:
    """Do the work of `missing_labels`; cached, because several tasks ask about the same data."""
    from ..data.columns import find_label_column
    from ..data.sources import load_image_stream, split_names
    from ..evaluation.splits import FIT_NAMES, SCORE_NAMES

    splits = split_names(dataset)
    fit = next((name for name in FIT_NAMES if name in splits), None)
    if fit is None or not any(name in splits for name in ([split] if split else SCORE_NAMES)):
        return "it has no train split with a test or validation split"
    if label_column is None and find_label_column(load_image_stream(dataset, split=fit, streaming=streaming)) is None:
        return "it has no label column"
    return None


def check_data(evaluation: Evaluation) -> None:
    """Check an evaluation's data before hours of pretraining.

    Raises:
        UserError: there is no such data set, split or column.
    """
    try:
        if evaluation.task in ("detection", "segmentation") or evaluation.test_dataset is not None:
            _check_columns(evaluation)
        elif (reason := missing_labels(evaluation)) is not None:
            raise UserError(reason)
    except UserError as error:
        raise UserError(f"{evaluation.task} cannot be evaluated on {evaluation.dataset}: {error}") from error


def _check_columns(evaluation: Evaluation) -> None:
    """Open the splits of an evaluation and find its columns in the same way as the task."""
    from ..evaluation import splits as splits_module
    from ..evaluation.object_detection.data import check_layout
    from ..evaluation.semantic_segmentation.data import label_map_column

    asked = evaluation.settings.get
    streaming = bool(asked("streaming"))
    splits = splits_module.resolve_splits(
        evaluation.dataset, evaluation.test_dataset, split=asked("split"), streaming=streaming
    )
    for part, split in ((splits.fit, splits.fit_split), (splits.score, splits.score_split)):
        image = splits_module.image_column(part, asked("image_column"))
        if evaluation.task == "detection":
            check_layout(part, split)
        elif evaluation.task == "segmentation":
            label_map_column(part, image, asked("label_column"), split)
        else:
            splits_module.label_column(part, asked("label_column"))


def _reading_settings(recipe: ResolvedRecipe) -> dict[str, Any]:
    """Return the recipe's settings for reading images, as settings of an evaluation."""
    data = recipe.data
    settings: dict[str, Any] = {"trust_paths": data.trust_paths, "image_range": data.image_range}
    settings |= {"image_column": data.image_column, "label_column": data.label_column, "streaming": data.streaming}
    return {name: value for name, value in settings.items() if value}


def _from_file(path: str) -> list[Evaluation]:
    """Read the evaluations that a YAML file lists."""
    listed, _ = read_yaml(path, "evaluations")
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise UserError(f"evaluations {path} must hold a list of `- {{task: ..., dataset: ...}}` entries")
    return [
        evaluation
        for number, entry in enumerate(listed, 1)
        for evaluation in _from_entry(entry, f"evaluations {path}, entry {number}")
    ]


def _from_entry(entry: dict[Any, Any], where: str) -> list[Evaluation]:
    """Read one entry of the evaluations file: an evaluation and its repeats."""
    for name in ("task", "dataset"):
        if entry.get(name) is None:
            raise UserError(f"{where}: {name} is missing")
    own, task = fields_of(ListedEvaluation), str(entry["task"])
    _check_task(task, f"{where}: ")
    values = check_values(entry, {**fields_of(TASK_OPTIONS[task]), **own}, f"{where}: ", what="setting")
    settings = {name: value for name, value in values.items() if name not in own}
    asked = ListedEvaluation(**{name: value for name, value in values.items() if name in own and value is not None})
    try:
        first = _make(asked.task, asked.dataset, asked.test_dataset, settings, asked.recipe, asked.name)
        return _repeated(first, asked.repeats)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_task(task: str, where: str = "") -> None:
    """Raise a UserError if there is no such task."""
    if task not in TASK_OPTIONS:
        message = f"{where}there is no task {task!r}: one of {', '.join(TASK_OPTIONS)}"
        raise unknown_name(task, TASK_OPTIONS, message)


def _make(
    task: str,
    dataset: str,
    test_dataset: str | None = None,
    settings: dict[str, Any] | None = None,
    recipe: str | None = None,
    name: str | None = None,
    by_default: bool = False,
) -> Evaluation:
    """Make an evaluation from what was asked for, and check its settings."""
    settings = {**(read_recipe(task, recipe) if recipe else {}), **(settings or {})}
    read_options(TASK_OPTIONS[task], settings)
    key = file_name(name or f"{task}-{data_name(dataset)}")
    if key in ("pretrain", "gradients"):
        raise UserError(f"an evaluation cannot be called {key}")
    return Evaluation(key, task, dataset, test_dataset, settings, by_default)


def _repeated(first: Evaluation, count: int) -> list[Evaluation]:
    """List an evaluation and its repeats. Each has its own cells; the table shows their mean."""
    return [replace(first, repeat=number) for number in range(count)]
