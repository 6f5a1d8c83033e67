"""What all evaluation tasks share around their own work: start, options, splits, device, result and JSON file."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..config.launchers import launched_processes
from ..config.ranges import check_seed
from ..models.devices import choose_device
from ..runs.agreement import all_or_none, patient_group
from .backbone import ImageSettings, StageFeatures, load_backbone, model_name
from .options import Options, read_options
from .report import EvaluationResult, check_output
from .splits import Splits, resolve_splits
from .tuning import make_accelerator

LAST_LOSSES = 20
"""Steps at the end of a training over which the reported last loss is averaged."""


@dataclass(frozen=True)
class Request:
    """The arguments that the public function of every task takes, as the user gave them."""

    model: Any
    dataset: Any
    test_dataset: Any
    output: Any
    device: Any
    seed: int
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))


@dataclass
class TaskRun:
    """One run of a task, as the task's own work sees it.

    Attributes:
        model: The reference to the model, as the user gave it; see `load_backbone`.
        options: The task's checked options.
        splits: The splits to fit on and to score.
        seed: Of everything random in the task.
        asked_device: The device the user named, or None.
        accelerator: Of accelerate; None until the work calls `accelerate`.
        notes: What a reader of the result must know; the work adds to it.
        trained: The network that the work has trained, if any.
    """

    model: Any
    options: Any
    splits: Splits
    seed: int
    asked_device: Any = None
    accelerator: Any = None
    notes: list[str] = field(default_factory=list)
    trained: Any = None

    @property
    def device(self) -> torch.device:
        """The device of accelerate if the task uses it, else the one the user named, else a GPU if there is one."""
        return choose_device(self.asked_device) if self.accelerator is None else self.accelerator.device

    def accelerate(self, mixed_precision: str = "no") -> Any:
        """Start `accelerate`, for work on all the processes that `accelerate launch` gives, and return it."""
        self.accelerator = make_accelerator(self.asked_device, mixed_precision)
        return self.accelerator

    def load_backbone(self) -> StageFeatures:
        """Load the model's backbone on the CPU, with the stages that the option `stages` names (default: all)."""
        features = load_backbone(self.model)
        return features if self.options.stages is None else StageFeatures(features.backbone, self.options.stages)

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed torch inside the block; its random state outside stays as it was."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            yield


def training_protocol(
    run: TaskRun, features: StageFeatures, settings: ImageSettings, losses: Sequence[float]
) -> dict[str, Any]:
    """What a report says of the training of a dense task: stages, batch, normalisation, first and last loss."""
    return {
        "stages": features.stages,
        "global_batch": run.options.batch_size * run.accelerator.num_processes,
        "image_mean": settings.mean,
        "image_std": settings.std,
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-LAST_LOSSES:])),
    }


@dataclass
class Outcome:
    """What a task's work found; `run_task` makes the result of it.

    Attributes:
        task: Name of the task in the result and its file, such as "knn" or "linear_10pct".
        metrics: As in `EvaluationResult`.
        fit_count: Number of images fitted on.
        score_count: Number of images scored.
        classes: As in `EvaluationResult`.
        protocol: Facts of the run that are added to the options, or replace them.
        per_class: As in `EvaluationResult`.
    """

    task: str
    metrics: dict[str, dict[str, float]]
    fit_count: int
    score_count: int
    classes: list[str]
    protocol: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, list[float | None]] = field(default_factory=dict)


def _found(request: Request, options: Any) -> Splits:
    """Find the splits, after a look at where the result goes.

    Raises:
        UserError: the data set or the output cannot be used.
    """
    check_output(request.output)
    return resolve_splits(
        request.dataset,
        request.test_dataset,
        split=options.split,
        streaming=getattr(options, "streaming", False),
        seed=request.seed,
        image=options.image_column,
        label=getattr(options, "label_column", None),
        trust_paths=options.trust_paths,
    )


def run_task(kind: type[Options], work: Callable[[TaskRun], Outcome], request: Request) -> EvaluationResult:
    """Run a task: check what the user gave, do the work, and write the result.

    Args:
        kind: The task's class of options.
        work: The task itself.
        request: What the user gave.

    Returns:
        The result. Its file is written by the first process only, and by none without an output folder.

    Raises:
        UserError: something the user gave does not fit; nothing is written then.
        TrainingStopped: the work trains, and its loss is not finite.
    """
    start = time.monotonic()
    options = read_options(kind, request.settings)
    if launched_processes() > 1:  # they agree about what follows, so that a mistake is told once
        make_accelerator(request.device, getattr(options, "mixed_precision", "no"))
    splits = all_or_none(lambda: _found(request, options), patient_group())
    run = TaskRun(request.model, options, splits, request.seed, request.device, notes=list(splits.notes))
    outcome = work(run)
    result = EvaluationResult(
        task=outcome.task,
        dataset=splits.name,
        split=splits.score_split,
        fit_split=splits.fit_split,
        model=model_name(request.model),
        metrics=outcome.metrics,
        protocol={**dataclasses.asdict(options), **outcome.protocol},
        seed=request.seed,
        count={"fit": outcome.fit_count, "score": outcome.score_count},
        seconds=time.monotonic() - start,
        notes=run.notes,
        classes=outcome.classes,
        per_class=outcome.per_class,
    )
    if request.output is not None and (run.accelerator is None or run.accelerator.is_main_process):
        result.save(request.output)
    if run.accelerator is not None:
        run.accelerator.wait_for_everyone()
    return result
