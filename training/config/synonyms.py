"""Options of different commands and tasks that say the same thing, and what other tools call them."""

from collections.abc import Collection

_ALIKE: tuple[tuple[str, ...], ...] = (
    (
        *("image_size", "short_sides", "short_side", "test_short_side", "long_side", "crop_size", "resize_side"),
        *("size", "img_size", "imgsz", "input_size", "resolution"),
    ),
    ("learning_rate", "learning_rates", "base_learning_rate", "lr"),
    ("epochs", "num_train_epochs", "steps", "max_steps", "min_steps", "iterations"),
    ("batch_size", "per_device_train_batch_size", "train_batch_size", "bs"),
    ("num_workers", "workers", "dataloader_num_workers", "num_proc"),
    ("k", "knn_neighbours", "neighbours", "neighbors", "num_neighbors"),
    ("temperature", "knn_temperature"),
    ("mixed_precision", "bf16", "fp16", "precision", "amp"),
    ("device", "use_cpu", "cpu", "gpu", "cuda"),
    ("model", "checkpoint", "directory", "backbone", "from_model", "weights", "pretrained", "file"),
    ("dataset", "data", "data_dir", "data_path", "images"),
    ("test_dataset", "eval_dataset", "val_dataset"),
    ("output", "output_dir", "out", "save_dir"),
    ("freeze_backbone", "freeze", "frozen"),
    ("label_column", "labels", "target_column"),
    ("repo", "hub_model_id", "repo_id"),
)


def called_here(name: str, known: Collection[str]) -> list[str]:
    """List the known options that say what an unknown one says elsewhere.

    Args:
        name: The unknown option, with underscores.
        known: The options there are.
    """
    group = next((group for group in _ALIKE if name in group), ())
    return [other for other in group if other in known]
