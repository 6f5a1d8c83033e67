"""What pretraining does with each field of transformers' TrainingArguments: it works, has no say, or is refused."""

from collections.abc import Mapping
from typing import Any

from .ranges import SEED, Range

_POSITIVE, _FROM_0, _FROM_1 = Range(above=0), Range(minimum=0), Range(minimum=1)

RANGES: Mapping[str, Range] = {
    "per_device_train_batch_size": _FROM_1,  # of training: at least 2, which the arguments check themselves
    "per_device_eval_batch_size": _FROM_1,
    "gradient_accumulation_steps": _FROM_1,
    "num_train_epochs": _POSITIVE,
    "max_steps": Range(minimum=-1),
    "learning_rate": _FROM_0,
    "weight_decay": _FROM_0,
    "warmup_steps": _FROM_0,
    "adam_beta1": Range(minimum=0, below=1),
    "adam_beta2": Range(minimum=0, below=1),
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": _FROM_0,
    "logging_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _FROM_0,
    "save_steps": _POSITIVE,
    "save_total_limit": Range(minimum=-1),
    "torch_empty_cache_steps": _FROM_1,
    "dataloader_num_workers": Range(minimum=0, maximum=256),
    "seed": SEED,
    "data_seed": SEED,
    "ddp_bucket_cap_mb": _FROM_1,
    "ddp_timeout": _FROM_1,
}
"""Ranges of the numbers among the fields that work."""

SUPPORTED = frozenset(
    """output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps weight_decay adam_beta1 adam_beta2 adam_epsilon gradient_accumulation_steps
    max_grad_norm bf16 fp16 tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size
    save_only_model save_strategy save_steps save_total_limit push_to_hub hub_token hub_private_repo hub_model_id
    hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better
    restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu dataloader_num_workers
    dataloader_pin_memory ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph
    ddp_backend ddp_timeout debug skip_memory_metrics resume_from_checkpoint""".split()  # noqa: SIM905
)
"""Fields that do in pretraining what transformers' documentation says."""

HARMLESS: Mapping[str, str] = {
    "do_train": "pretraining always trains",
    "do_eval": "held-out images are always looked at, unless monitor_steps is 0",
    "enable_jit_checkpoint": "a checkpoint at SIGTERM is always written",
    "dataloader_drop_last": "every batch is complete",
    "dataloader_persistent_workers": "workers live as long as the run",
    "local_rank": "launchers give it; the environment says it too",
}
"""Fields whose every value is true of pretraining anyway, or changes nothing that anybody sees."""

_TEXT = "is for language models"
_EVALUATION = "has no effect: looks at held-out images compute their own metrics"
_CHECKPOINTING = "belongs to activation_checkpointing, which pretraining cannot use"
_SHARDED = "cannot be used: the target's update and LARS need whole parameters in each process; use accelerate launch"
_LOADER = "has no effect: batches come from this package's own loader"

REFUSED: Mapping[str, str] = {
    "optim": "has no effect: give optimizer (lars, sgd or adamw)",
    "optim_args": "has no effect: give momentum, lars_eta, adam_beta1, adam_beta2 or adam_epsilon",
    "optim_target_modules": "has no effect: give optimizer (lars, sgd or adamw)",
    "average_tokens_across_devices": _TEXT,
    "label_smoothing_factor": "has no effect: pretraining uses no labels",
    "bf16_full_eval": _EVALUATION,
    "fp16_full_eval": _EVALUATION,
    "activation_checkpointing_kwargs": _CHECKPOINTING,
    "gradient_checkpointing_kwargs": _CHECKPOINTING,
    "use_liger_kernel": _TEXT,
    "liger_kernel_config": _TEXT,
    "use_cache": _TEXT,
    "neftune_noise_alpha": _TEXT,
    "include_num_input_tokens_seen": _TEXT,
    "auto_find_batch_size": "would change the recipe: give a smaller per_device_train_batch_size",
    "prediction_loss_only": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
    "eval_accumulation_steps": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "save_on_each_node": "cannot be used: all machines share one output folder",
    "ignore_data_skip": "has no effect: a resumed run always goes on at the next image",
    "accelerator_config": _LOADER,
    "parallelism_config": _SHARDED,
    "dataloader_prefetch_factor": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "dataloader_in_order": "has no effect: the order of the images is always the same",
    "remove_unused_columns": "has no effect: only the images are read",
    "label_names": "has no effect: give label_column",
    "train_sampling_strategy": _LOADER,
    "length_column_name": _LOADER,
    "fsdp": _SHARDED,
    "fsdp_config": _SHARDED,
    "deepspeed": _SHARDED,
    "do_predict": "has no effect: give `ladder evaluate`",
}
"""Fields that would have no effect, or a wrong one: the reason, as it follows the name in the message."""

CHECKED_BY_ARGUMENTS = frozenset({"activation_checkpointing", "gradient_checkpointing"})
"""Fields that `LadderTrainingArguments` refuses with a message of their own."""


def is_default(value: Any, default: Any) -> bool:
    """Tell whether a value says the same as the default: empty values do, and what transformers makes of them."""
    if value == default or (not value and not default):
        return True
    return type(value).__name__ == "AcceleratorConfig" and value == type(value)()
