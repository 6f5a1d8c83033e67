"""`ladder demo`: a tour of the package on the embedded handwritten digits, a few minutes on two processor cores."""

import time
from pathlib import Path

import torch

from ..config.recipe import read_recipe, resolve
from ..errors import UserError
from ..pretraining.build import build_model
from ..pretraining.run import pretrain
from ..runs.record import RunRecord
from .options import DemoOptions

RECIPE = "digits"
EXPORT = "exported"


def demo(options: DemoOptions) -> int:
    """Pretrain, evaluate each stage before and after, export, reload, and print where the files are.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the folder belongs to another run.
    """
    started = time.monotonic()
    folder = Path(options.directory).expanduser()
    # The digits are public, so that the card may show some of them.
    overrides: dict[str, object] = {"output": str(folder), "card_images": True}
    if options.steps is not None:
        overrides["max_steps"] = options.steps
    recipe = resolve(read_recipe(RECIPE), overrides)
    pretrain(recipe)

    from .. import evaluation

    torch.manual_seed(int(recipe.values.get("seed", 42)))
    before = evaluation.knn(build_model(recipe), RECIPE)
    after = evaluation.knn(str(folder), RECIPE, output=folder)
    difference = _export_and_reload(folder)
    _write_card_again(folder)
    run = RunRecord.read(folder)
    assert run is not None  # pretraining has written it
    print(f"\nkNN accuracy on {after.count['score']} held-out digits, no label used in pretraining")
    print(f"{'stage':8}{'untrained':>12}{'pretrained':>12}")
    for stage, row in after.metrics.items():
        print(f"{stage:8}{before.metrics[stage]['accuracy']:12.3f}{row['accuracy']:12.3f}")
    print(f"\n{run.steps} steps, {run.images_seen} images in {run.seconds:.0f} s of training")
    print(f"exported backbone, loaded again by transformers alone: largest difference {difference:.1e}")
    for path, what in (
        (folder, "native backbone, preprocessor and card (README.md)"),
        (folder / "pretraining", "the full checkpoint, to continue from"),
        (folder / EXPORT, "the exported backbone"),
        (folder / "evaluation", "the results as JSON"),
    ):
        print(f"  {path}: {what}")
    print(f"done in {time.monotonic() - started:.0f} s")
    print("next: ladder pretrain --dataset FOLDER_OF_IMAGES  (the same on your own images)")
    return 0


def _export_and_reload(folder: Path) -> float:
    """Export to transformers' format, and load the result with transformers' own class.

    Returns:
        The largest difference between its features of the last stage and those of the online network.

    Raises:
        UserError: the features differ by more than rounding.
    """
    from transformers import AutoModel

    from modeling_ladder import LadderSiameseModel

    from .export import export_command
    from .options import ExportOptions

    export_command(ExportOptions(checkpoint=str(folder), format="transformers", output=str(folder / EXPORT)))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = LadderSiameseModel.from_pretrained(folder / "pretraining")(images).last_hidden_state
        got = AutoModel.from_pretrained(folder / EXPORT)(images).last_hidden_state
    difference = (expected - got).abs().max().item()
    if not difference <= 1e-5 * max(1.0, expected.abs().max().item()):
        raise UserError(f"{folder / EXPORT} gives other features than the run (largest difference {difference:.1e})")
    return difference


def _write_card_again(folder: Path) -> None:
    """Write the card again, now with the results of the evaluation."""
    from ladder_model_cards import write_card

    write_card(folder)
