"""Printing the result of `inspect_data`."""

from collections.abc import Callable
from typing import Any

from ..loading.depth import describe_not_numbers, describe_values


def print_report(result: dict, write: Callable[[str], Any] = print) -> None:
    """Print the result of `inspect_data` line by line through `write`."""
    for report in result["datasets"]:
        count = report["images"]
        write(f"{report['name']}: {'an unknown number of' if count is None else f'{count:,}'} images")
        write(f"  columns     {', '.join(report['columns'])}; images in {report['image_column']}")
        if report["account"]["read_as"]:
            write(f"  read as     {report['account']['read_as']}")
        for note in report["notes"]:
            write(f"              {note}")
        if report["label_column"]:
            missing = f"; {report['without_label']:,} of {report['looked_at']:,} looked at have none"
            write(
                f"  labels      {report['label_column']}, {report['classes']} classes"
                + (missing if report["without_label"] else "")
            )
        else:
            write("  labels      none")
        write(
            f"  unreadable  {report['unreadable']} of {report['looked_at']:,} looked at "
            f"({100 * report['unreadable_share']:.2f} %)"
        )
        for example in report["unreadable_examples"]:
            write(f"              {example['key']}: {example['reason']}")
        for shard in report["damaged_shards"]:
            write(f"              the rest of {shard['file'] or 'a shard'} cannot be read: {shard['reason']}")
        for side in ("width", "height"):
            if report[side]:
                sizes = report[side]
                write(f"  {side:<11} {sizes['smallest']} to {sizes['largest']}, median {sizes['median']:g}")
        write(f"  modes       {_counts(report['modes'])}; formats {_counts(report['formats'])}")
        if report["deep"] is not None:
            write(f"  values      {_values(report)}")
            if shares := report["deep"]["not_numbers"]:
                write(f"  no numbers  {describe_not_numbers(shares, report['deep']['images'])}")
        _print_speed(report, write)
    if result["sheet"]:
        write(f"the views, their boxes and matched points: {result['sheet']}")


def _print_speed(report: dict, write: Callable[[str], Any]) -> None:
    measured, step = report["input"], report["step"]
    if measured is None:
        write("  input       too few readable images to measure")
        return
    where = f"{measured['workers']} workers" if measured["workers"] else "no workers"
    write(f"  input       {measured['images_per_second']:.0f} images/s with {where} on {measured['cores']} cores")
    if step is not None:
        verdict = (
            "the input side keeps up"
            if step["input_is_faster"]
            else f"the input side is the slower: about {step['workers_needed']} workers would keep up"
        )
        took = f"{step['images_per_second']:.3g} images/s, {step['seconds']:.3g} s for a step of {step['images']}"
        write(f"  model       {took}: {verdict}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _values(report: dict) -> str:
    deep = report["deep"]
    return describe_values(deep["smallest"], deep["largest"], deep["images"], report["image_range"])
