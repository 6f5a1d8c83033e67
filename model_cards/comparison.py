"""The section of a card that compares methods on the same budget, from the results of `ladder compare`."""

from typing import Any

from .metadata import METHOD_TITLES, TASK_TITLES
from .text import duration, plain, quantity, shown_dataset, table
from .values import dictionaries, dictionary, is_number, items, numbers, percent

MAX_ROWS = 60


def comparison(data: dict[str, Any]) -> str:
    """Write the comparison as Markdown; empty unless at least two methods were measured.

    Args:
        data: The content of comparison.json: "methods", "baseline", "seeds", "dataset", "rows" (task, dataset, metric,
            headline, and for each method mean, std, count, collapsed and the difference to the baseline with its
            interval), "pretraining" (steps and seconds of each method and seed), "notes".
    """
    names = [str(name) for name in items(data.get("methods"))]
    rows = [row for row in dictionaries(data.get("rows")) if any(_mean(row, name) for name in names)]
    if len(names) < 2 or not rows:
        return ""
    baseline = str(data.get("baseline") or names[0])
    others = [name for name in names if name != baseline]
    seeds = items(data.get("seeds"))
    on = f" on {plain(shown_dataset(data['dataset']))}" if data.get("dataset") else ""
    several = len(seeds) > 1
    spread = (
        f"mean ± standard deviation over {len(seeds)} seeds ({', '.join(plain(seed) for seed in seeds)}); differences "
        "are taken seed by seed, in points, with their 95 % t-interval"
        if several
        else "one seed, no spread; differences in points"
    )
    text = (
        f"Trained{on} by `ladder compare`: every method sees the same images and views in the same order. In per cent: "
        f"{spread}. Bold: the headline of a task."
    )
    parts = [text]
    for other in others:
        lines = []
        for row in rows[:MAX_ROWS]:
            results = [_mean(row, name) or "—" for name in (baseline, other)]
            lines.append([_what(row), *results, _difference(dictionary(row.get("methods")).get(other))])
        parts.append(table(["Measured", _title(baseline), _title(other), "Difference"], lines))
    parts.append(_cost(data, names))
    parts += [f"Note: {plain(note, 400)}" for note in items(data.get("notes"))[:20]]
    return "\n\n".join(part for part in parts if part)


def _what(row: dict[str, Any]) -> str:
    """What a row measured: the task, the data set and the metric, the headline of a task in bold."""
    metric = plain(str(row.get("metric")).replace("_", " "), 60)
    task = plain(TASK_TITLES.get(str(row.get("task")), str(row.get("task") or "")), 60)
    shown = f"{task} on {plain(shown_dataset(row.get('dataset') or ''), 60)}, {metric}"
    return f"**{shown}**" if row.get("headline") is True else shown


def _title(name: str) -> str:
    return plain(METHOD_TITLES.get(name, name), 60)


def _mean(row: dict[str, Any], name: str) -> str:
    """Write a method's result in a row; empty if there is none."""
    found = dictionary(dictionary(row.get("methods")).get(name))
    collapsed = found.get("collapsed") if isinstance(found.get("collapsed"), list) else []
    if not is_number(found.get("mean")):
        return "collapsed" if collapsed else ""
    more = f" ({len(collapsed)} collapsed)" if collapsed else ""
    return percent(found["mean"], found.get("std")) + more


def _difference(result: Any) -> str:
    found = dictionary(dictionary(result).get("difference"))
    if not is_number(found.get("mean")):
        return "—"
    text = f"{100 * found['mean']:+.1f}"
    if is_number(found.get("low")) and is_number(found.get("high")):
        text += f" ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
    return text


def _cost(data: dict[str, Any], names: list[str]) -> str:
    """Write the steps and the average time of each method's runs, because equal steps can take unequal time."""
    parts = []
    for name in names:
        runs = [dictionary(run) for run in dictionary(dictionary(data.get("pretraining")).get(name)).values()]
        steps = sorted({int(step) for step in numbers([run.get("steps") for run in runs])})
        seconds = numbers([run.get("seconds") for run in runs])
        if steps and seconds:
            shown = " to ".join(quantity(step) for step in dict.fromkeys((steps[0], steps[-1])))
            parts.append(f"{_title(name)} {shown} steps in {duration(sum(seconds) / len(seconds))}")
    return f"Pretraining took, on average over the seeds: {'; '.join(parts)}." if parts else ""
