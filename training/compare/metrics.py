"""The metrics of an evaluation that the table shows."""

from typing import Any

from ..models.all_stages import ALL_STAGES

CONSTANT = "constant"
DETECTION_METRICS = ("AP", "AP50", "AP75")


def metrics_of(cell: dict[str, Any]) -> dict[str, float | None]:
    """Pick the metrics that the table shows from the cell of a finished evaluation.

    Args:
        cell: The cell's content.

    Returns:
        Metric ("accuracy stage4", "box AP", "mIoU") -> value from 0 to 1, or None if it is not defined.
    """
    metrics = cell["metrics"]
    if cell["task"] == "detection":
        kinds = [kind for kind in ("box", "mask") if kind in metrics]
        return {f"{kind} {name}": metrics[kind].get(name) for kind in kinds for name in DETECTION_METRICS}
    if cell["task"] == "segmentation":
        head = next(name for name in metrics if name != CONSTANT)
        return {"mIoU": metrics[head]["mean_iou"], "pixel accuracy": metrics[head]["pixel_accuracy"]}
    return {f"accuracy {name}": row["accuracy"] for name, row in metrics.items()}


def headline_metric(metrics: list[str]) -> str:
    """Choose the metric that stands for an evaluation.

    If there is one value per stage, it is that of the last stage: choosing the best one would need the scored images.
    Otherwise it is the first metric, box AP or mIoU.

    Args:
        metrics: Names as returned by `metrics_of`.
    """
    stages = [name for name in metrics if name.startswith("accuracy ") and name != f"accuracy {ALL_STAGES}"]
    return stages[-1] if stages else metrics[0]
