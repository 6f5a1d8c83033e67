"""The metrics of an evaluation's cell that a table shows."""

from typing import Any

from ..models.all_stages import ALL_STAGES

CONSTANT = "constant"


DETECTION_METRICS = ("AP", "AP50", "AP75")


def figures_of(cell: dict[str, Any]) -> dict[str, float | None]:
    """The figures of an evaluation's cell that the table shows.

    Args:
        cell: Of a finished evaluation.

    Returns:
        Name of the metric ("accuracy stage4", "box AP", "mIoU") to a share from 0 to 1.
    """
    metrics = cell["metrics"]
    if cell["task"] == "detection":
        kinds = [kind for kind in ("box", "mask") if kind in metrics]
        return {f"{kind} {name}": metrics[kind].get(name) for kind in kinds for name in DETECTION_METRICS}
    if cell["task"] == "segmentation":
        head = next(name for name in metrics if name != CONSTANT)
        return {"mIoU": metrics[head]["mean_iou"], "pixel accuracy": metrics[head]["pixel_accuracy"]}
    return {f"accuracy {name}": row["accuracy"] for name, row in metrics.items()}


def headline_of(metrics: list[str]) -> str:
    """The metric that stands for an evaluation.

    Of tasks with a figure per stage it is the last stage, whatever stage is best: that could only be chosen on the
    scored images. Else it is the first one, AP of boxes or mIoU.

    Args:
        metrics: As `figures_of` names them.
    """
    stages = [name for name in metrics if name.startswith("accuracy ") and name != f"accuracy {ALL_STAGES}"]
    return stages[-1] if stages else metrics[0]
