"""`LadderTrainer`: transformers' Trainer for pretraining with a momentum target on endless image streams."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback

from modeling_ladder import LadderSiameseForPreTraining
from modeling_ladder.batch_norm import convert_batch_norms

from ..config.arguments import LadderTrainingArguments
from ..errors import UserError
from ..loading.loader import ViewLoader
from ..loading.passes import steps_of_passes
from ..models.devices import fastest_convolutions
from ..models.stage_sizes import check_image_size
from ..runs.agreement import StepAgreement, all_or_none, chosen_by_first
from ..views.two_views import TwoViewTransform
from .best import check_best_metric, looks_at_images
from .callbacks import MonitorCallback, PassCallback, TargetUpdateCallback
from .held_out import held_out_images, is_image_dataset
from .input_copies import InputCopies
from .lars import Lars
from .meters import LevelMeters
from .monitor import MonitorMetrics, look
from .resuming import agreed_checkpoint, read_loader_state
from .run_log import RunLog
from .saving import SavingTrainer
from .stops import BATCH_NORM_SETTLED, check_has_loss, check_losses, check_spread

MODEL_INPUTS = ("pixel_values", "view_boxes", "view_flips")


class LadderTrainer(SavingTrainer):
    """Pretrains a `LadderSiameseForPreTraining`.

    It adds to transformers' Trainer:

    - LARS with its parameter groups;
    - the target's update after each optimizer step, with tau on its cosine schedule;
    - each level's loss in the logs, averaged over the logging window;
    - looks at held-out images;
    - an exception that names the level whose loss is not finite or that has collapsed;
    - complete checkpoints that resume exactly, one of them when a signal asks the process to end (`SavingTrainer`);
    - pushes of the native backbone with this package's card (`HubTrainer`).

    Args:
        model: The pretraining model.
        args: Training arguments. `num_train_epochs` is the number of passes over the data; `max_steps` overrides it.
        train_dataset: A `datasets` object with an image column, map-style or streaming; or any dataset whose items are
            dictionaries with `pixel_values` (2, channels, height, width), `view_boxes` and `view_flips`.
        eval_dataset: Held-out images for monitoring, with or without labels. Default: a fixed 1 % of `train_dataset`.
        transform: Makes the two views. Default: `TwoViewTransform()`.
        image_column: Column of the images. Default: the column whose type is an image.
        label_column: Column of the labels for monitoring. Default: the column whose type is a class label.
        loader_options: Other arguments of `ViewLoader` (`shuffle_buffer`, `max_bad_fraction`, ...).
        **kwargs: As in transformers (`callbacks`, `optimizers`, ...).

    Raises:
        UserError: the data set is empty, has no image column, or is smaller than one global batch; or the views are
            too small for the stages.
    """

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: LadderSiameseForPreTraining,
        args: LadderTrainingArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        transform: Callable[..., dict[str, Tensor]] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        loader_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            raise UserError("more than one GPU in one process: start with `accelerate launch -m ladder_training ...`")
        model.set_channels_last(args.channels_last)
        if args.sync_batch_norm and args.world_size > 1:
            model = cast(LadderSiameseForPreTraining, convert_batch_norms(model, synchronised=True))
            # The processes' running statistics are equal, so DDP need not send those of the first at each forward.
            if args.ddp_broadcast_buffers is None:
                args.ddp_broadcast_buffers = False
        if args.ddp_find_unused_parameters is None and _all_parameters_used(model):
            args.ddp_find_unused_parameters = False
        images = train_dataset is not None and is_image_dataset(train_dataset)
        transform = TwoViewTransform() if transform is None and images else transform
        size = getattr(transform, "size", None)
        if images and size is not None:
            check_image_size(model, model.feature_maps, size, model.config.levels[-1][0])
        self.image_column, self.label_column = image_column, label_column
        self.loader_options = dict(loader_options or {})
        self.held_out = None
        if images and looks_at_images(vars(args)):
            train_dataset, self.held_out = held_out_images(
                train_dataset, eval_dataset, transform, image_column, label_column, args.monitor_images
            )
        check_best_metric(args, model, self.held_out)
        self._meters = LevelMeters()
        self._input_copies: InputCopies | None = None
        self._last_log = (time.monotonic(), 0)
        asked = args.max_steps, args.enable_jit_checkpoint
        try:
            # transformers refuses a stream without max_steps, but the length of a pass is not known yet. Its own
            # checkpoint at SIGTERM lets a run look finished; ours is always on.
            args.max_steps, args.enable_jit_checkpoint = max(args.max_steps, 1), False
            super().__init__(
                model=model,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=self.held_out,
                transform=transform,
                **kwargs,
            )
        finally:
            args.max_steps, args.enable_jit_checkpoint = asked
        for theirs in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):  # bars and lines of transformers, in a notebook too
            self.pop_callback(theirs)
        self.add_callback(RunLog(args.global_batch_size, bar=not args.disable_tqdm))
        self._target_update = TargetUpdateCallback(self.accelerator, lambda: self.passes)
        self.add_callback(self._target_update)
        self._pass_ends = PassCallback()
        self.add_callback(self._pass_ends)
        self.add_callback(MonitorCallback(None if self.held_out is None else self.look))

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Let DDP keep gradients where it exchanges them, which saves one copy of all gradients in memory and time."""
        made: dict[str, Any] = super()._build_accelerator_args(**kwargs)
        for handler in made["kwargs_handlers"]:
            if isinstance(handler, DistributedDataParallelKwargs):
                handler.gradient_as_bucket_view = True
        return made

    @property
    def passes(self) -> float:
        """Number of passes over the training data so far."""
        return 0.0 if self._train_loader is None else self._train_loader.passes

    # Data

    def get_train_dataloader(self) -> ViewLoader:
        """Return the endless loader. It shards, shuffles and resumes by itself; accelerate does not shard it again."""
        if self._train_loader is None:
            args = self.args
            self._train_loader = ViewLoader(
                self.train_dataset,
                self.transform,
                batch_size=args.per_device_train_batch_size,
                accumulation=args.gradient_accumulation_steps,
                seed=args.seed if args.data_seed is None else args.data_seed,
                rank=args.process_index,
                world_size=args.world_size,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
                image_column=self.image_column,
                **self.loader_options,
            )
        return self._train_loader

    def train(self, resume_from_checkpoint: str | bool | os.PathLike | None = None, **kwargs: Any) -> Any:
        """Train to the end, from the start or from a checkpoint.

        Args:
            resume_from_checkpoint: Folder of a checkpoint, or True for the newest complete one in `output_dir`.
                Default: as the training arguments say.
            **kwargs: As in transformers.

        Returns:
            As in transformers.

        Raises:
            NotFinite: a loss or a weight is NaN or infinite.
            LevelCollapsed: a level has collapsed.
            Interrupted: a signal asked the process to end; a checkpoint of the last step was written.
            UserError: `num_train_epochs` is given for a stream of unknown length, or there is no checkpoint to resume
                from.
        """
        args = self.args
        if resume_from_checkpoint is None:
            resume_from_checkpoint = args.resume_from_checkpoint
        if resume_from_checkpoint is True:
            resume_from_checkpoint = agreed_checkpoint(args.output_dir, args.process_index)
            if resume_from_checkpoint is None:
                raise UserError(f"no complete checkpoint in {args.output_dir}: start without resume_from_checkpoint")
        self._train_loader = None
        loader = self.get_train_dataloader()
        if resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
            if not checkpoint.is_dir():
                raise UserError(f"resume_from_checkpoint: there is no checkpoint {checkpoint}")
            resume_from_checkpoint = str(checkpoint)
            all_or_none(lambda: loader.load_state_dict(read_loader_state(checkpoint, args.process_index)))
        self._steps = StepAgreement()
        asked = (args.max_steps, args.warmup_steps, args.ignore_data_skip)
        try:
            args.max_steps = self._total_steps(loader)
            self._pass_ends.steps_per_pass = self._common_steps_per_pass(loader)
            args.warmup_steps = self._warmup_steps(loader)
            args.ignore_data_skip = True  # the loader resumes at the position of the checkpoint
            with self.stop_request, fastest_convolutions(args.device):
                return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            loader.close()
            args.max_steps, args.warmup_steps, args.ignore_data_skip = asked

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Fetch the batches of one optimizer step. If this fails in one process, all processes stop at this step."""
        fetch = super().get_batch_samples
        return self._steps.all_or_none(lambda: fetch(epoch_iterator, num_batches, device))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing after the last step: resumed there, transformers would make one more step before it checks."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _steps_per_pass(self, loader: ViewLoader, what: str, instead: str = "give max_steps") -> float:
        if loader.batches_per_pass is None:
            raise UserError(f"{what} needs the number of images, but this stream does not declare it: {instead}")
        return loader.batches_per_pass / self.args.gradient_accumulation_steps

    def _common_steps_per_pass(self, loader: ViewLoader) -> float | None:
        """Steps per pass, the same in all processes, if something is due at the ends of passes; else None."""
        strategies = {name: getattr(self.args, name) for name in ("save_strategy", "eval_strategy", "logging_strategy")}
        asked = [f"{name}: epoch" for name, strategy in strategies.items() if strategy == "epoch"]
        return chosen_by_first(lambda: self._steps_per_pass(loader, asked[0], "give steps")) if asked else None

    def _total_steps(self, loader: ViewLoader) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        self._steps_per_pass(loader, "num_train_epochs")  # which refuses a stream of unknown length
        batches = cast(int, loader.batches_per_pass)
        return steps_of_passes(self.args.num_train_epochs, batches, self.args.gradient_accumulation_steps)

    def _warmup_steps(self, loader: ViewLoader) -> float:
        if self.args.warmup_epochs is None:
            return self.args.warmup_steps
        return round(self.args.warmup_epochs * self._steps_per_pass(loader, "warmup_epochs"))

    # Optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: LadderTrainingArguments, model: nn.Module | None = None
    ) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Return LARS, SGD or AdamW, with the learning rate scaled to the global batch."""
        common = {"lr": args.peak_learning_rate}
        if args.optimizer == "lars":
            return Lars, {**common, "momentum": args.momentum, "eta": args.lars_eta}
        if args.optimizer == "sgd":
            return torch.optim.SGD, {**common, "momentum": args.momentum}
        return torch.optim.AdamW, {**common, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of all weights. transformers recognises norms by name and would decay those of ResNet."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    # Step

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Copy a batch to the device; to a GPU while it still computes the step before."""
        if self.args.device.type != "cuda":
            return super()._prepare_inputs(inputs)
        if self._input_copies is None:
            self._input_copies = InputCopies(self.args.device)
        return self._input_copies(inputs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the weighted loss of one micro-batch. Level losses are summed on the device until they are logged.

        Raises:
            UserError: the model returned no loss.
        """
        if "view_parameters" in inputs:
            inputs = self._device_views(inputs)
        outputs = model(**{name: inputs[name] for name in MODEL_INPUTS if name in inputs})
        check_has_loss(outputs, self.args.torch_compile)
        if model.training:
            self._meters.add(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    @property
    def _device_views(self) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        from ..views.device import DeviceViews

        return DeviceViews(cast(TwoViewTransform, self.transform))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Compute the norm, which needs a pass over all gradients, only at steps that are logged."""
        logging_steps = max(1, int(self.state.logging_steps or 1))
        if grad_norm is None and (self.state.global_step + 1) % logging_steps != 0:
            return None
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    # Watching

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each level's loss and spread, the speed and tau to the training logs.

        Raises:
            NotFinite: a loss is NaN or infinite.
            LevelCollapsed: a level has collapsed.
        """
        if "loss" in logs:
            entries = self._meters.averages(self.accelerator)
            now, step = time.monotonic(), self.state.global_step
            seconds, steps = now - self._last_log[0], step - self._last_log[1]
            self._last_log = (now, step)
            logs = {**logs, **entries, "images_per_second": steps * self.args.global_batch_size / max(seconds, 1e-9)}
            if self._target_update.last_momentum is not None:
                logs["momentum"] = self._target_update.last_momentum
            super().log(logs, start_time)
            check_losses(logs, step)
            prefix = "batch_std/"
            self._check_spread({k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)})
            return
        super().log(logs, start_time)

    def look(self) -> MonitorMetrics | None:
        """Measure the held-out images and log the metrics.

        Running statistics differ between processes, so process 0 looks, and all processes decide by what it saw.

        Returns:
            The metrics, the same in all processes, or None if no image is held out.
        """
        if self.held_out is None:
            return None
        args = self.args
        batch_size = max(args.per_device_eval_batch_size, 64)
        model = self.pretraining_model
        images = self.held_out
        metrics = chosen_by_first(lambda: look(model, images, batch_size, args.knn_neighbours, args.knn_temperature))
        self.log(metrics.log_entries())
        return metrics

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Look at the held-out images. transformers calls this at each evaluation.

        Returns:
            Metrics such as "eval_knn/stage1", for `metric_for_best_model`.

        Raises:
            LevelCollapsed: a level has collapsed.
        """
        measured = self.look()
        metrics = {}
        if measured is not None:
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.log_entries().items()}
            if self.state.global_step >= BATCH_NORM_SETTLED:
                self._check_spread(measured.std)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _check_spread(self, spread: dict[str, float]) -> None:
        if self.args.stop_on_collapse and self.state.global_step > 0:
            check_spread(spread, self.state.global_step, self.args.collapse_threshold)


def _all_parameters_used(model: LadderSiameseForPreTraining) -> bool:
    """Return whether every parameter gets a gradient at each step, so that DDP need not search for unused ones."""
    config = model.config
    trained = {stage for stage, _, weight in config.levels if weight > 0}
    return cast(PreTrainedConfig, config.backbone_config).model_type == "resnet" and config.stages[-1] in trained
