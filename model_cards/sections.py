"""The factual sections of a card: what the model is, how it was trained, what was measured."""

import math
import re
import statistics
from typing import Any

from .metadata import CONSTANT, METHOD_TITLES, TASK_TITLES, architecture, recipe_values
from .run_files import Evaluation, RunFiles, count_weights
from .stages import input_size, named, stage_size
from .text import code, duration, fence, hide_paths, one_line, plain, quantity, shown_dataset, table
from .values import dictionary, is_number, items, numbers

MAX_CLASSES = 100
LONG_PROTOCOL = 300


def facts(files: RunFiles) -> str:
    """Write the table of facts that a reader wants to know first."""
    rows = [["Architecture", plain(architecture(files))]]
    parameters = count_weights(files.path)
    if parameters:
        rows.append(["Parameters", f"{quantity(parameters)}"])
    if files.stages:
        titles = [_stage(files, name) for name in files.stages]
        rows.append(["Stages", "<br>".join(titles)])
    if edge := input_size(files):
        rows.append(["Input", f"RGB, {edge} pixels, prepared by `AutoImageProcessor`"])
    if files.method:
        rows.append(["Training", f"{plain(METHOD_TITLES[files.method])}, self-supervised, no labels"])
    if files.datasets:
        rows.append(["Images", ", ".join(_dataset(row["name"]) for row in files.datasets)])
    rows += [[title, plain(value)] for title, value in lineage(files)]
    license_id = files.license
    rows.append(["Licence", "other: ask whoever published it" if license_id == "other" else plain(license_id)])
    return _fact_table("The model", rows)


def levels(files: RunFiles) -> str:
    """Describe the losses of all levels from the pretraining config; empty without a config."""
    config = files.pretraining_config
    names, losses, weights = (items(config.get(f"level_{key}")) for key in ("names", "losses", "weights"))
    if not (names and losses and weights):
        return ""
    rows = [[plain(named(n)), plain(k), plain(w)] for n, k, w in zip(names, losses, weights, strict=False)]
    matching = ""
    if any(kind != "global" for kind in losses):
        grid = config.get("local_grid_size")
        how = {
            "location": f"{plain(grid)} × {plain(grid)} points of the source image that both views show",
            "feature": "each position of one view and the most similar position of the other",
        }.get(str(config.get("local_matching")), plain(config.get("local_matching")))
        matching = f"\n\nLocal losses compare {how}."
    target = "the online network itself, without gradient"
    if config.get("target") != "stop_gradient":
        target = f"a moving average of it (momentum {plain(config.get('base_momentum'))}, rising to 1)"
    heads = ", ".join(
        f"{plain(config[key])} {what}"
        for key, what in (
            ("projection_hidden_size", "hidden units (global, last level)"),
            ("lower_projection_hidden_size", "hidden units (global, other levels)"),
            ("local_projection_hidden_size", "hidden units (local levels)"),
            ("projection_size", "outputs"),
        )
        if is_number(config.get(key))
    )
    heads = f" Projector and predictor of a level are MLPs of {heads}." if heads else ""
    head = table(["Stage", "Loss", "Weight"], rows, numbers_from=2)
    return f"{head}{matching}\n\nThe online network predicts the projections of the target network, {target}.{heads}"


def training(files: RunFiles) -> str:
    """Write the table of facts about the run, with its recipe and command; empty without a run."""
    run, values = files.run, recipe_values(files)
    if not run or files.imported:
        return ""
    rows: list[list[str]] = []
    for row in files.datasets:
        parts = [code(shown_dataset(row["name"]))]
        parts += [f"{key} {code(row[key])}" for key in ("config", "split", "revision", "fingerprint") if row.get(key)]
        parts += [f"{quantity(row['images'])} images"] if is_number(row.get("images")) else []
        rows.append(["Data", ", ".join(parts)])
    if values.get("from_model"):
        rows.append(["Started from", code(shown_dataset(values["from_model"]))])
    for key, title in (("images_seen", "Images seen"), ("steps", "Optimizer steps"), ("batch_size", "Batch size")):
        if is_number(run.get(key)):
            rows.append([title, quantity(run[key])])
    best = run.get("best")
    if isinstance(best, dict) and is_number(best.get("step")):
        value = f" of {best['value']:.4g}" if is_number(best.get("value")) else ""
        rows.append(
            ["Published weights", f"of step {quantity(best['step'])}, the best {code(best.get('metric'))}{value}"]
        )
    if values.get("image_size"):
        rows.append(["View size", f"{plain(values['image_size'])} pixels"])
    for key, title in (
        ("optimizer", "Optimizer"),
        ("learning_rate", "Learning rate"),
        ("weight_decay", "Weight decay"),
    ):
        if values.get(key) is not None:
            rows.append([title, plain(values[key])])
    if is_number(run.get("seconds")):
        rows.append(["Wall time", duration(run["seconds"])])
    for key, title in (("hardware", "Hardware"), ("seed", "Seed")):
        if run.get(key) is not None:
            rows.append([title, plain(run[key])])
    if run.get("git_commit"):
        commit = one_line(run["git_commit"])
        changed = ", with local changes" if commit.endswith("+") else ""
        rows.append(["Code", f"ladder-siamese at commit {code(commit.removesuffix('+')[:12])}{changed}"])
    if isinstance(run.get("versions"), dict):
        rows.append(["Versions", ", ".join(f"{plain(k)} {plain(v)}" for k, v in run["versions"].items())])
    if run.get("finished") or run.get("started"):
        rows.append(["Date", plain(one_line(run.get("finished") or run["started"])[:10])])
    status = run.get("status")
    note = ""
    if status == "running":
        note = "\n\n**The run is still going:** this is its state after the steps above."
    elif status not in (None, "finished"):
        reason = f" ({plain(run['reason'])})" if run.get("reason") else ""
        note = f"\n\n**The run did not finish:** its status is {plain(status)}{reason}."
    text = _fact_table("The run", rows) + note
    recipe = run.get("recipe")
    source = recipe.get("text") if isinstance(recipe, dict) else None
    if isinstance(source, str) and source.strip():
        text += "\n\n" + _folded("Recipe", fence(hide_paths(source.strip()), "yaml"))
    if run.get("command"):
        text += "\n\nCommand:\n\n" + fence(hide_paths(one_line(run["command"], 2000)), "bash")
    return text


def origin(files: RunFiles) -> str:
    """Say where imported weights are from, and what of their file is not here; empty for weights trained here."""
    return _fact_table("The file", [[name, plain(value)] for name, value in origin_facts(files)])


def lineage(files: RunFiles) -> list[tuple[str, str]]:
    """Names and values of what is known of the weights that training began with; empty for a new network."""
    source = files.started_from
    if not source:
        return []
    rows = []
    if source.get("model") and not recipe_values(files).get("from_model"):  # a run's own table says it
        rows.append(("Started from", shown_dataset(source["model"])))
    imported = source.get("imported")
    if isinstance(imported, dict):
        told = [one_line(imported.get(key) or "", 120) for key in ("file", "kind")]
        checksum = f"SHA-256 {one_line(imported['sha256'], 64)}" if imported.get("sha256") else ""
        rows.append(("The weights it started from", ", ".join(part for part in (*told, checksum) if part)))
    if source.get("license"):
        rows.append(("Their licence", one_line(source["license"], 60)))
    return rows


def origin_facts(files: RunFiles) -> list[tuple[str, str]]:
    """Names and values of what `ladder import` recorded."""
    found = files.imported
    if not found:
        return []
    left_out = [one_line(name, 80) for name in items(found.get("left_out"))]
    prefix = found.get("prefix")
    titles = (("file", "File"), ("sha256", "SHA-256"), ("kind", "Written with"), ("padding", "Padding in training"))
    rows = [(title, one_line(found[key], 120)) for key, title in titles if found.get(key)]
    if prefix:
        rows.append(("Taken from", one_line(prefix, 120)))
    if left_out:
        count = f"{quantity(len(left_out))} tensor{'' if len(left_out) == 1 else 's'}"
        rows.append(
            (
                "Left out",
                f"{count} that {'is' if len(left_out) == 1 else 'are'} no part of the backbone, such as {left_out[0]}",
            )
        )
    rows += [("Note", one_line(note, 400)) for note in items(found.get("notes"))[:10]]
    return rows


def results(files: RunFiles) -> str:
    """Write one table per task and data set with the results of every stage; empty if nothing was measured."""
    order = [*TASK_TITLES]
    found = [*files.evaluations]
    found.sort(key=lambda one: order.index(one.task) if one.task in order else len(order))
    return "\n\n".join(_result(files, evaluation) for evaluation in found)


def _result(files: RunFiles, evaluation: Evaluation) -> str:
    first, seeds = evaluation.runs[0], len(evaluation.runs)
    metrics = evaluation.metrics
    columns = list(dict.fromkeys(name for values in metrics.values() for name in values))
    count = dictionary(first.get("count"))
    scored = count.get("score") if is_number(count.get("score")) else None
    untrained = evaluation.untrained
    shown, others = [], []
    for stage, values in metrics.items():
        cells = {c: _mean(values.get(c, []), c, scored if seeds == 1 else None) for c in columns}
        name = "always the same answer, to compare" if stage == CONSTANT else _stage(files, stage)
        row = [name, cells[columns[0]]]
        if untrained:
            before = untrained.get(stage, {}).get(columns[0], [])
            row = [name, row[1] + _gain(values.get(columns[0], []), before), _mean(before, columns[0])]
        shown.append(row)
        short = "always the same answer" if stage == CONSTANT else plain(named(stage))
        others += [[short, _words(column), cells[column]] for column in columns[1:] if values.get(column)]
    of = "Stage" if any(stage.startswith("stage") for stage in metrics) else "Output"
    title = (
        f"### {plain(TASK_TITLES.get(evaluation.task, evaluation.task))} on {plain(shown_dataset(evaluation.dataset))}"
    )
    fitted = f"Fitted on {_split(count.get('fit'), first.get('fit_split'))}, " if first.get("fit_split") else ""
    about = f"{fitted}scored on {_split(scored, first.get('split'))}."
    about = about[0].upper() + about[1:]
    if seeds > 1:
        about += f" Mean ± standard deviation over {seeds} seeds ({', '.join(plain(s) for s in evaluation.seeds)})."
    else:
        about += f" One seed ({plain(first.get('seed', 'unknown'))})"
        shares = any(c.startswith("accuracy") for c in columns)
        about += "; ± is the 95 % range from the number of scored images alone (Wilson)." if scored and shares else "."
    if columns:
        head = [of, _words(columns[0]) + (" (gain)" if untrained else ""), *(["untrained"] if untrained else [])]
        text = f"{title}\n\n{about}\n\n{table(head, shown)}"
    else:
        text = f"{title}\n\n{about}\n\nNo metric is a finite number."
    if others:
        text += "\n\n" + _folded("Other metrics", table([of, "metric", "value"], others, numbers_from=2))
    protocol = first.get("protocol")
    told = [_setting(key, value) for key, value in (protocol if isinstance(protocol, dict) else {}).items()]
    if any(told):
        line = ", ".join(part for part in told if part) + "."
        text += "\n\n" + (f"Protocol: {line}" if len(line) < LONG_PROTOCOL else _folded("Protocol", line))
    for note in first.get("notes") or []:
        text += f"\n\nNote: {plain(note, 400)}"
    return text + _per_class(first)


def _per_class(run: dict[str, Any]) -> str:
    """Write the folded table of results per class; empty if there are none."""
    classes, values = run.get("classes"), run.get("per_class")
    if not isinstance(classes, list) or not isinstance(values, dict) or not values:
        return ""
    columns = {name: row for name, row in values.items() if isinstance(row, list) and len(row) == len(classes)}
    if not columns:
        return ""
    rows = [
        [plain(label, 60), *(_mean(numbers(row[index]), name) for name, row in columns.items())]
        for index, label in enumerate(classes[:MAX_CLASSES])
    ]
    more = f"\n\nand {len(classes) - MAX_CLASSES} more classes" if len(classes) > MAX_CLASSES else ""
    return "\n\n" + _folded("Each class", table(["Class", *map(_words, columns)], rows) + more)


def _fact_table(title: str, rows: list[list[str]]) -> str:
    """Write a table of names and values. Its title is the header, which Markdown requires; names do not wrap."""
    lines = [f"| {name.replace(' ', '&nbsp;')} | {value} |" for name, value in rows]
    return "\n".join([f"| {title.replace(' ', '&nbsp;')} | |", "| --- | --- |", *lines]) if lines else ""


def _dataset(name: Any) -> str:
    return "digits (the handwritten digits of scikit-learn)" if name == "digits" else plain(shown_dataset(name))


def _folded(title: str, body: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"


def _split(images: Any, split: Any) -> str:
    return f"{quantity(images)} images ({plain(split)})" if is_number(images) else f"the {plain(split)} split"


def _mean(values: list[float], metric: str, scored: float | None = None) -> str:
    """Write mean and spread. Fractions are shown in per cent, with the sampling error if `scored` is given."""
    if not values:
        return "—"
    mean = statistics.fmean(values)
    share = all(0 <= value <= 1 for value in values) and not any(w in metric.lower() for w in ("rank", "std", "loss"))
    scale, unit = (100, " %") if share else (1, "")
    digits = 1 if share else 3
    spread = statistics.stdev(values) if len(values) > 1 else None
    if spread is None and scored and share and metric.startswith("accuracy"):
        spread = _wilson(mean, scored)
    shown = f"{scale * mean:.{digits}f}"
    return f"{shown} ± {scale * spread:.{digits}f}{unit}" if spread is not None else f"{shown}{unit}"


def _wilson(share: float, count: float) -> float:
    """Compute half the width of Wilson's 95 % interval of a fraction of `count` images. It is not 0 at 100 %."""
    square = 1.96**2 / count
    return 1.96 / (1 + square) * math.sqrt((share * (1 - share) + square / 4) / count)


def _gain(values: list[float], before: list[float]) -> str:
    """Write the gain over the untrained network in points, to stand after a value."""
    return f" ({100 * (statistics.fmean(values) - statistics.fmean(before)):+.1f})" if values and before else ""


def _stage(files: RunFiles, name: str) -> str:
    """A stage as a heading that people read: "Stage 1 (24 × 24 positions, 32 channels)"."""
    size = stage_size(files, name)
    return f"{plain(named(name))} ({size})" if size else plain(named(name))


def _words(name: str) -> str:
    """Turn a key of a JSON file into words."""
    name = re.sub(r"^accuracy_top(\d+)$", r"top-\1 accuracy", name)
    return plain(re.sub(r"\biou\b", "IoU", name.replace("_", " ")))


def _setting(name: Any, value: Any) -> str:
    """Put a setting of a protocol into words; empty if it is not set or does not change the result."""
    if value is None or value == [] or name in ("num_workers", "streaming", "trust_paths"):
        return ""
    if isinstance(value, bool):
        return f"{'' if value else 'no '}{_words(str(name))}"
    shown = value if isinstance(value, list) else [value]
    return f"{_words(str(name))} {' '.join(plain(item, 80) for item in shown[:12])}"
