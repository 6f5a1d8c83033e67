"""The sections of a run's report: its state, its plan, its curves, what was measured, what the stages see."""

import base64
import io
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..figures.training_figures import curves, series
from ..metadata import CONSTANT, METHOD_TITLES, TASK_TITLES, architecture, model_title
from ..run_files import FIGURES, Evaluation, RunFiles, count_weights
from ..secrets import hide_secrets
from ..sections import origin_facts
from ..stages import named, stage_size
from ..text import duration, hide_paths, quantity, shown_dataset, spoken
from ..values import dictionary, is_number, items, numbers
from .charts import line_chart
from .html import facts, paragraph, section, table, text

PICTURE_BYTES = 4_000_000
"""Together, as base64: the page stays under 5 MB."""
PICTURE_WIDTH = 1100


def run_sections(files: RunFiles) -> Iterator[str]:
    """Give the sections of a run's page as HTML, those without content left out.

    Args:
        files: Of the run's folder; a run that is still going has no evaluations and no figures yet.
    """
    yield _head(files)
    yield section("Where the weights are from", _imported(files))
    yield _curves(files)
    yield _evaluations(files)
    yield _pictures(files)
    yield _plan(files)
    yield _origin(files)


def _head(files: RunFiles) -> str:
    run = files.run
    total = _total_steps(files)
    steps = run.get("steps") if is_number(run.get("steps")) else None
    last = max((entry["step"] for entry in files.log if is_number(entry.get("step"))), default=None)
    if last is not None and (steps is None or last > steps):
        steps = last
    state = str(run.get("status") or "no run recorded")
    if steps is not None:
        state += f", step {quantity(steps)}" + (f" of {quantity(total)}" if total else "")
    told = [f'<span class="state">{text(state)}</span>']
    if run.get("reason"):
        told.append(paragraph(text(run["reason"])))
    rows = [("Network", text(architecture(files)))] if files.config else []
    weights = count_weights(files.path)
    if weights:
        rows.append(("Parameters", quantity(weights)))
    if files.method:
        rows.append(("Method", text(METHOD_TITLES[files.method])))
    for row in files.datasets:
        count = f", {quantity(row['images'])} images" if is_number(row.get("images")) else ""
        rows.append(("Images", text(shown_dataset(row["name"])) + count))
    if is_number(run.get("images_seen")) and run["images_seen"]:
        rows.append(("Images seen", quantity(run["images_seen"])))
    if is_number(run.get("seconds")):
        rows.append(("Time", duration(run["seconds"])))
        if total and steps and 0 < steps < total and state.startswith("running"):
            rows.append(("Time left, about", duration(run["seconds"] * (total - steps) / steps)))
    return f"<header><h1>{text(model_title(files))}</h1>{''.join(told)}{facts(rows)}</header>"


def _imported(files: RunFiles) -> str:
    """What `ladder import` recorded, with the licence."""
    rows = [(text(name), text(value)) for name, value in origin_facts(files)]
    return facts([*rows, ("Licence", text(files.license))]) if rows else ""


def _curves(files: RunFiles) -> str:
    log = files.log
    knn = {name: [(x, 100 * y) for x, y in points] for name, points in curves(log, "knn").items()}
    losses = curves(log, "loss") or ({"total": total} if (total := series(log, "loss")) else {})
    parts = [
        line_chart(knn, "kNN accuracy on held-out images, in per cent"),
        _knn_table(knn),
        line_chart(losses, "Loss of each level (2 − 2 cos, both directions)"),
        line_chart(curves(log, "std"), "Spread of the projections (1: healthy, 0: collapsed)", bottom=0.0),
        line_chart(curves(log, "rank"), "Effective rank of the projections", bottom=0.0),
    ]
    count = files.run.get("monitoring_images")
    told = f"Every look is at {quantity(count)} held-out images." if is_number(count) and count else ""
    return section("How training went", paragraph(told, "soft") if told and files.log else "", *parts)


def _knn_table(knn: dict[str, list[tuple[float, float]]]) -> str:
    """The first look, of the untrained network, beside the last one."""
    rows = []
    for name, points in knn.items():
        if points[0][0] == 0 and len(points) > 1:
            (_, first), (_, last) = points[0], points[-1]
            rows.append([text(named(name)), f"{first:.1f}", f"{last:.1f}", f"{last - first:+.1f}"])
    head = ["kNN, per cent", "untrained", "now", "gain"]
    return table(head, rows) if rows else ""


def _evaluations(files: RunFiles) -> str:
    return section("What was measured", *(_evaluation(files, one) for one in files.evaluations))


def _evaluation(files: RunFiles, evaluation: Evaluation) -> str:
    """One task: a row per stage, its first metric beside the untrained network; the other metrics folded below."""
    metrics = {stage: values for stage, values in evaluation.metrics.items() if stage != CONSTANT}
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    untrained = evaluation.untrained
    rows, others = [], []
    for stage, values in metrics.items():
        found = values.get(names[0], [])
        before = untrained.get(stage, {}).get(names[0], [])
        size = stage_size(files, stage)
        row = [text(named(stage)) + (f'<br><span class="soft">{size}</span>' if size else ""), _average(found)]
        if untrained:
            gain = f"{100 * (statistics.fmean(found) - statistics.fmean(before)):+.1f}" if found and before else "—"
            row += [_average(before), gain]
        rows.append(row)
        for name in names[1:]:
            if name in values:
                others.append([text(named(stage)), text(name.replace("_", " ")), _average(values[name])])
    if names:
        head = ["stage", text(names[0].replace("_", " ")), *(["untrained", "gain"] if untrained else [])]
        shown = table(head, rows)
    else:
        shown = paragraph("No metric is a finite number.")
    count, run = dictionary(evaluation.runs[0].get("count")), evaluation.runs[0]
    told = f"In per cent; {quantity(count['score'])} images scored" if is_number(count.get("score")) else "In per cent"
    if is_number(count.get("fit")):
        told += f", {quantity(count['fit'])} fitted on"
    told += f"; seed{'s' if len(evaluation.runs) > 1 else ''} {', '.join(text(seed, 20) for seed in evaluation.seeds)}"
    notes = "".join(paragraph(f"Note: {text(hide_paths(str(note)))}", "soft") for note in items(run.get("notes"))[:10])
    title = f"{TASK_TITLES.get(evaluation.task, evaluation.task)} on {shown_dataset(evaluation.dataset)}"
    if not untrained:
        notes = paragraph("The untrained network was not measured.", "soft") + notes
    more = table(["stage", "metric", "value"], others, numbers_from=2) if others else ""
    folded = f"<details><summary>Other metrics</summary>{more}</details>" if more else ""
    return f"<h3>{text(title)}</h3>{paragraph(told, 'soft')}{shown}{folded}{notes}"


def _average(values: list[float]) -> str:
    if not values:
        return "—"
    shown = f"{100 * statistics.fmean(values):.1f}"
    return shown + (f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _pictures(files: RunFiles) -> str:
    """The figures of a finished run, as small as they must be for the page to stay light."""
    titles = {"pca": "Main directions of each stage's features, as colours", "neighbours": "Most similar images"}
    parts, left = [], PICTURE_BYTES
    skipped = 0
    for name in files.figures:
        data = _picture(files.path / FIGURES / name)
        if data is None or len(data) > left:
            skipped += 1
            continue
        left -= len(data)
        kind, _, stage = name.removesuffix(".png").partition("-")
        title = text(titles.get(kind, kind) + (f": {spoken(stage)}" if stage else ""))
        image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure><figcaption>{title}</figcaption>{image}</figure>")
    if skipped:
        parts.append(
            paragraph(f"{skipped} figures are left out to keep this page small; they lie in figures/.", "soft")
        )
    if not parts and files.run.get("status") == "finished":
        parts.append(
            paragraph("No images are shown: set <code>card_images: true</code> in the recipe to draw them.", "soft")
        )
    return section("What the stages see", *parts)


def _picture(path: Path) -> str | None:
    """A PNG as base64, at most `PICTURE_WIDTH` pixels wide; None if it is no readable image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((PICTURE_WIDTH, 20 * PICTURE_WIDTH))
            buffer = io.BytesIO()
            small.quantize(256).save(buffer, "PNG", optimize=True)
    except (OSError, ValueError):
        return None
    return base64.b64encode(buffer.getvalue()).decode()


def _plan(files: RunFiles) -> str:
    recipe = dictionary(files.run.get("recipe"))
    values = dictionary(recipe.get("values"))
    rows = []
    for name, value in values.items():
        told = value if isinstance(value, str) else json.dumps(value, default=str)
        rows.append([text(name), text(hide_paths(told))])
    return section("The plan", table(["field", "value"], rows, numbers_from=2) if rows else "")


def _origin(files: RunFiles) -> str:
    run = files.run
    rows: list[tuple[str, str]] = []
    for key, title in (("hardware", "Machine"), ("seed", "Seed"), ("started", "Started"), ("finished", "Finished")):
        if run.get(key) is not None:
            rows.append((title, text(run[key])))
    if run.get("starts"):
        rows.append(("Starts", text(run["starts"])))
    if run.get("git_commit"):
        rows.append(("Code", text(run["git_commit"])))
    versions = dictionary(run.get("versions"))
    if versions:
        rows.append(("Versions", ", ".join(f"{text(name)} {text(value)}" for name, value in versions.items())))
    command = f"<pre>{text(hide_secrets(hide_paths(str(run['command']))), 2000)}</pre>" if run.get("command") else ""
    return section("Where it comes from", command, facts(rows) if rows else "")


def _total_steps(files: RunFiles) -> int | None:
    values: dict[str, Any] = dictionary(dictionary(files.run.get("recipe")).get("values"))
    steps = numbers(values.get("max_steps"))
    return int(steps[0]) if steps and steps[0] > 0 else None
