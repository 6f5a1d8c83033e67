"""The metadata of a card (its YAML block). It contains only known facts and measured results."""

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .run_files import Evaluation, RunFiles
from .text import SLUG, one_line, shown_dataset

ARXIV = "2211.13844"
HUB_TASKS = {
    "knn": "image-classification",
    "linear": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
}
TASK_TITLES = {
    "knn": "k nearest neighbours",
    "linear": "Linear probe",
    "detection": "Object detection",
    "segmentation": "Semantic segmentation",
}
# Evaluations of segmentation also score a constant answer, which is not a result of the model.
CONSTANT = "constant"
METHOD_TITLES = {"ladder": "Ladder Siamese", "byol": "BYOL", "simsiam": "SimSiam", "random": "untrained"}


def model_title(files: RunFiles) -> str:
    """Make the title, such as "Ladder Siamese ResNet-50, pretrained on X", unless the run has one."""
    given = files.run.get("title") or recipe_values(files).get("run_name_for_card")
    if given:
        return one_line(given, 100)
    names = [shown_dataset(row["name"]) for row in files.datasets]
    on = f", pretrained on {' and '.join(names)}" if names else ""
    method = f"{METHOD_TITLES[files.method]} " if files.method else ""
    return one_line(f"{method}{architecture(files)}{on or (not method and ' backbone') or ''}", 100)


def recipe_values(files: RunFiles) -> dict[str, Any]:
    """Return the resolved fields of the run's recipe; empty without a run."""
    recipe = files.run.get("recipe")
    values = recipe.get("values") if isinstance(recipe, dict) else None
    return values if isinstance(values, dict) else {}


def architecture(files: RunFiles) -> str:
    """Name the architecture, such as "ResNet-50"; without a common name, return the model type."""
    kind = one_line(files.config.get("model_type", "backbone"), 40)
    if kind == "timm_wrapper":
        return f"timm's {one_line(files.config.get('architecture', 'network'), 60)}"
    if kind != "resnet":
        return kind
    known = {
        ("basic", (2, 2, 2, 2)): "18",
        ("basic", (3, 4, 6, 3)): "34",
        ("bottleneck", (3, 4, 6, 3)): "50",
        ("bottleneck", (3, 4, 23, 3)): "101",
        ("bottleneck", (3, 8, 36, 3)): "152",
    }
    depths = files.config.get("depths")
    key = (files.config.get("layer_type", "bottleneck"), tuple(depths) if isinstance(depths, list) else ())
    usual = [64, 128, 256, 512] if key[0] == "basic" else [256, 512, 1024, 2048]
    if key in known and files.config.get("hidden_sizes") == usual:
        return f"ResNet-{known[key]}"
    return "small ResNet"


def card_licence(files: RunFiles) -> str:
    """The licence's identifier for the metadata; "other" if what is recorded is none."""
    license_id = one_line(files.license, 60).lower()
    return license_id if SLUG.fullmatch(license_id) else "other"


def card_data(files: RunFiles) -> ModelCardData:
    """Build the metadata of a run's card."""
    fields: dict[str, Any] = {"license": card_licence(files)}
    datasets = [one_line(row.get("hub") or "") for row in files.datasets]
    base = one_line(recipe_values(files).get("from_model") or "").split("@")[0]
    results = measured_results(files.evaluations)
    fields["datasets"] = [name for name in dict.fromkeys(datasets) if SLUG.fullmatch(name)] or None
    fields["base_model"] = base if SLUG.fullmatch(base) and base.count("/") == 1 else None
    tags = ["vision", "backbone"]
    if files.method:
        tags = ["ladder-siamese", "self-supervised-learning", *tags, files.method, f"arxiv:{ARXIV}"]
    model_type = one_line(files.config.get("model_type", ""), 60)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        tags=[tag for tag in dict.fromkeys([*tags, model_type]) if tag],
        model_name=model_title(files) if results else None,
        eval_results=results or None,
        **{key: value for key, value in fields.items() if value},
    )


def measured_results(evaluations: list[Evaluation]) -> list[EvalResult]:
    """List one entry per measured task, data set, stage and metric. Several seeds are averaged."""
    found = []
    for evaluation in evaluations:
        first = evaluation.runs[0]
        name = shown_dataset(evaluation.dataset)
        for stage, metrics in evaluation.metrics.items():
            if stage == CONSTANT:
                continue
            for metric, values in metrics.items():
                seeds = f", mean of {len(values)} seeds" if len(values) > 1 else ""
                title = TASK_TITLES.get(evaluation.task, evaluation.task)
                found.append(
                    EvalResult(
                        task_type=HUB_TASKS.get(evaluation.task, "image-feature-extraction"),
                        task_name=one_line(title, 80),
                        dataset_type=re.sub(r"[^\w./-]+", "-", name).strip("-./") or "local",  # an identifier
                        dataset_name=name,
                        dataset_split=one_line(first.get("split") or "", 40) or None,
                        metric_type=one_line(metric, 40),
                        metric_name=one_line(f"{title}, {stage}, {metric}{seeds}", 120),
                        metric_value=round(sum(values) / len(values), 6),
                    )
                )
    return found
