"""A plan as people read it: the table that is printed before a run starts, and the recipe that is written."""

from typing import Any

import yaml

from .planner import GIB, ImageFacts, MachineFacts, Plan


def plan_table(plan: Plan, images_per_second: float | None = None) -> str:
    """Format a plan as lines of text.

    Args:
        plan: What to show.
        images_per_second: Measured speed of training with this plan; None if it was not measured.
    """
    values, reasons = plan.values, plan.reasons
    rows = [
        ("backbone", _backbone(values), reasons["backbone"]),
        ("view size", f"{values['image_size']} pixels", reasons["view size"]),
        ("batch", _batch(plan), reasons["batch"]),
        ("steps", _steps(plan), reasons["steps"]),
        ("rate", _rate(plan), reasons["rate"]),
        ("workers", str(values.get("dataloader_num_workers", 0)), reasons["workers"]),
        ("memory", _memory(plan), "" if plan.fits else "MORE THAN THERE IS: use a smaller batch or view size"),
        ("time", _time(plan, images_per_second), ""),
    ]
    lines = [f"images   {describe_images(plan.images)}", f"machine  {describe_machine(plan.machine)}"]
    lines += [f"  {name:<10} {value:<40} {why}".rstrip() for name, value, why in rows]
    if len(plan.machine.gpus) > 1:
        lines.append(
            "the plan uses all GPUs: start it with `accelerate launch -m ladder_training pretrain` and the same words"
        )
    return "\n".join(lines)


def recipe_text(plan: Plan) -> str:
    """Format a plan as a recipe, with the facts that led to it in its header, and without tokens."""
    from ladder_model_cards.secrets import is_secret_name

    header = [
        "# Planned by `ladder pretrain` without a recipe; change any line, or take it as the start of your own recipe.",
        f"# Images: {describe_images(plan.images)}.",
        f"# Machine: {describe_machine(plan.machine)}.",
        f"# Memory: {_memory(plan)}. Result: not known before the run.",
    ]
    # `{name: value}` in one line, without its braces.
    dumped = (
        yaml.safe_dump({name: value}, width=10**6, default_flow_style=True)
        for name, value in plan.values.items()
        if not is_secret_name(name)
    )
    lines = [line.strip()[1:-1] for line in dumped]
    return "\n".join([*header, *lines]) + "\n"


def describe_images(images: ImageFacts) -> str:
    """Describe the images in a few words."""
    count = "an unknown number" if images.count is None else f"{images.count:,}"
    how = ", read as a stream" if images.streaming else ""
    how += f"; {images.held_out:,} of them are held out to monitor the run" if images.held_out else ""
    return f"{count} in {images.name}, shorter side {images.side} pixels, {images.file_bytes / 1e3:.0f} kB each{how}"


def describe_machine(machine: MachineFacts) -> str:
    """Describe the machine in a few words."""
    gpus = "no GPU"
    if machine.gpus:
        first = machine.gpus[0]
        gpus = f"{len(machine.gpus)} x {first.name} with {first.memory / GIB:.0f} GB"
    return f"{machine.cores} cores, {machine.memory / GIB:.0f} GB of memory, {gpus}"


def _backbone(values: dict[str, Any]) -> str:
    if values.get("from_model") is not None:
        return f"that of {values['from_model']}"
    return str(values.get("backbone") or (values.get("backbone_config") or {}).get("model_type", "resnet50"))


def _batch(plan: Plan) -> str:
    each = plan.values["per_device_train_batch_size"]
    return str(each) if each == plan.global_batch else f"{plan.global_batch:,} (each device {each})"


def _steps(plan: Plan) -> str:
    if plan.steps is None:
        return f"{plan.values['num_train_epochs']} passes of unknown length"
    seen = plan.steps * plan.global_batch
    passes = f", {seen / plan.images.trained:.3g} passes" if plan.images.trained else ""
    return f"{plan.steps:,} ({seen:,} images{passes})"


def _rate(plan: Plan) -> str:
    values = plan.values
    base = values.get("base_learning_rate")
    rate = values.get("learning_rate") if base is None else base * plan.global_batch / 256
    warm = f"{values['warmup_epochs']} passes" if values.get("warmup_epochs") else f"{values.get('warmup_steps')} steps"
    return f"{values['optimizer']} {rate:g}, warm-up {warm}"


def _memory(plan: Plan) -> str:
    host = f"{plan.host_bytes / GIB:.1f} of {plan.machine.memory / GIB:.0f} GB"
    if not plan.machine.gpus:
        return host
    return f"{plan.device_bytes / GIB:.1f} of {plan.machine.gpus[0].memory / GIB:.0f} GB on each GPU, {host}"


def _time(plan: Plan, images_per_second: float | None) -> str:
    if images_per_second is None or plan.steps is None:
        return "not measured; the log shows the time left from the first line on"
    seconds = plan.steps * plan.global_batch / images_per_second
    return f"about {readable_time(seconds)} (measured now: {images_per_second:.3g} images/s)"


def readable_time(seconds: float) -> str:
    """Format a duration with one unit or two: "48 s", "12 min", "3.5 h", "2.1 days"."""
    for unit, size, limit in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{seconds / 86400:.1f} days"
