"""The sections of a comparison's report: methods side by side, with intervals, curves and costs."""

from collections.abc import Iterator
from typing import Any

from ..figures.style import Look, method_looks
from ..metadata import METHOD_TITLES, TASK_TITLES
from ..text import duration, quantity, shown_dataset, spoken
from ..values import dictionaries, dictionary, is_number, items, numbers, percent
from .charts import line_chart
from .html import paragraph, section, table, text


def comparison_sections(data: dict[str, Any]) -> Iterator[str]:
    """Give the sections of a comparison's page as HTML.

    Args:
        data: The content of comparison.json, as `ladder compare` writes it, also while it goes on.
    """
    methods = [str(name) for name in items(data.get("methods"))]
    baseline = str(data.get("baseline") or (methods[0] if methods else ""))
    others = [name for name in methods if name != baseline]
    seeds = ", ".join(str(seed) for seed in items(data.get("seeds")))
    *first, last = [_title(name) for name in methods] or ["A comparison without methods"]
    titles = f"{', '.join(first)} and {last}" if first else last
    on = f" on {text(shown_dataset(data['dataset']))}" if data.get("dataset") else ""
    told = (
        f"Every method sees the same images and views in the same order. Averages ± standard deviations over seeds "
        f"{text(seeds)}; differences are taken seed by seed, in points, with their 95 % interval."
    )
    yield f"<header><h1>{titles}{on}</h1>{paragraph(told, 'soft')}</header>"
    rows = dictionaries(data.get("rows"))
    yield section("Results", _results(rows, methods, baseline, others, headlines=True))
    yield section("Pretraining", _costs(data, methods), _reach(data, methods))
    yield section("How training went", *_curves(dictionary(data.get("curves")), method_looks(methods, baseline)))
    yield section("Every metric", _results(rows, methods, baseline, others, headlines=False))
    yield section("Notes", *(paragraph(text(note)) for note in items(data.get("notes"))[:20]))


def _title(name: str) -> str:
    return text(METHOD_TITLES.get(name, name), 60)


def _results(
    rows: list[dict[str, Any]], methods: list[str], baseline: str, others: list[str], *, headlines: bool
) -> str:
    """A table for each other method beside the baseline; with `headlines`, only with the first metric of a task."""
    tables = []
    for other in others:
        lines = []
        for row in rows:
            if headlines and row.get("headline") is not True:
                continue
            by_method = dictionary(row.get("methods"))
            task = TASK_TITLES.get(str(row.get("task")), str(row.get("task") or ""))
            metric = f"{str(row.get('metric')).replace('_', ' ')} on {shown_dataset(row.get('dataset') or '')}"
            line = [f'{text(task)}<br><span class="soft">{text(metric)}</span>']
            line += [_shown(dictionary(by_method.get(name))) for name in (baseline, other)]
            lines.append([*line, _difference(dictionary(by_method.get(other)))])
        if lines:
            title = f"<h3>{_title(other)} beside {_title(baseline)}</h3>" if len(others) > 1 else ""
            tables.append(title + table(["task", _title(baseline), _title(other), "difference"], lines))
    return "".join(tables)


def _shown(result: dict[str, Any]) -> str:
    """A method's mean and spread, and how many of its runs collapsed."""
    stopped = items(result.get("collapsed"))
    shown = percent(result["mean"], result.get("std")) if is_number(result.get("mean")) else "—"
    return shown + (f" ({len(stopped)} collapsed)" if stopped else "")


def _difference(result: dict[str, Any]) -> str:
    difference = dictionary(result.get("difference"))
    if not is_number(difference.get("mean")):
        return "—"
    shown = f"{100 * difference['mean']:+.1f}"
    if is_number(difference.get("low")) and is_number(difference.get("high")):
        shown += f" [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    return shown


def _costs(data: dict[str, Any], methods: list[str]) -> str:
    rows = []
    for name in methods:
        runs = [dictionary(run) for run in dictionary(dictionary(data.get("pretraining")).get(name)).values()]
        if not runs:
            continue
        averages = []
        for key in ("seconds", "cpu_seconds"):
            values = numbers([run.get(key) for run in runs])
            averages.append(duration(sum(values) / len(values)) if values else "—")
        steps = sorted({int(step) for step in numbers([run.get("steps") for run in runs])})
        shown = " to ".join(quantity(step) for step in dict.fromkeys((steps[0], steps[-1]))) if steps else "—"
        rows.append([f"{_title(name)}, {len(runs)} runs", shown, *averages])
    head = ["method", "steps", "time", "processor time"]
    told = paragraph("Times are averages over the runs.", "soft")
    return told + table(head, rows) if rows else ""


def _reach(data: dict[str, Any], methods: list[str]) -> str:
    """How soon each method reaches the baseline's last kNN accuracy, as a share of the baseline's steps."""
    shares: dict[str, dict[str, str]] = {}
    for row in dictionaries(data.get("steps_to_reach")):
        if is_number(row.get("mean")):
            shares.setdefault(str(row.get("features")), {})[str(row.get("method"))] = f"{row['mean']:.2f}"
    if not shares:
        return ""
    rows = [[text(name), *(found.get(method, "—") for method in methods)] for name, found in shares.items()]
    told = "Steps until a method reaches the baseline's last kNN accuracy, as a share of the baseline's steps:"
    return paragraph(told, "soft") + table(["stage", *(_title(name) for name in methods)], rows)


def _curves(groups: dict[str, Any], looks: dict[str, Look]) -> Iterator[str]:
    """One chart per stage (kNN) or level (loss, spread), a line per method, averaged over the seeds."""
    titles = {
        "knn": "kNN accuracy on held-out images, in per cent",
        "loss": "loss",
        "std": "spread of the projections (1: healthy, 0: collapsed)",
    }
    for group, title in titles.items():
        by_method = dictionary(groups.get(group))
        for name in dict.fromkeys(name for curves in by_method.values() for name in dictionary(curves)):
            lines, shown = {}, {}
            for method, curves in by_method.items():
                curve = dictionary(dictionary(curves).get(name))
                scale = 100 if group == "knn" else 1
                pairs = zip(items(curve.get("step")), items(curve.get("mean")), strict=False)
                points = [(float(x), scale * y) for x, y in pairs if is_number(x) and is_number(y)]
                words = METHOD_TITLES.get(method, method.replace("_", " "))
                lines[words] = points
                shown[words] = looks.get(method, Look("ink", True))
            titled = f"{spoken(name)[0].upper()}{spoken(name)[1:]}: {title}"
            yield line_chart(lines, titled, bottom=0.0 if group == "std" else None, looks=shown)
