"""Do fine-tuning, the linear classifier and the untrained network stand in the order in which they must?

    python benchmarks/order.py --model FOLDER --data NAME [--tuning --epochs 5] [--output FOLDER]

Runs what a user types (`ladder evaluate linear`, with its column of the untrained network, and `ladder finetune
classification`) with the default rates and prints the accuracies. Exits with 1 unless fine-tuning is above the linear
classifier on all stages, and that above the untrained network's. One seed: no spread is known.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from ladder_training.cli.entry import main as ladder
from ladder_training.runs.run_folder import hardware, versions

BOX = Path(__file__).resolve().parents[1] / "model_cards" / "backbones" / "imagenette96-ladder"


def measure(model: str, data: str, folder: Path, tuning: list[str]) -> dict[str, tuple[float, int, float]]:
    """Evaluate and fine-tune.

    Args:
        model: Folder or Hub name.
        data: Labelled data set.
        folder: Gets the results.
        tuning: More words for `ladder finetune`.

    Returns:
        What was measured to (accuracy in percent, images scored, seconds).
    """
    began = time.monotonic()
    if ladder(["evaluate", "linear", "--model", model, "--dataset", data, "--output", str(folder)]):
        raise SystemExit("ladder evaluate failed")
    seconds = time.monotonic() - began
    result = json.loads(next((folder / "evaluation").glob("linear-*.json")).read_text(encoding="utf-8"))
    images = result["count"]["score"]
    rows = {
        "untrained network, linear": (100 * result["untrained"]["all"]["accuracy"], images, seconds),
        "pretrained, linear": (100 * result["metrics"]["all"]["accuracy"], images, seconds),
    }
    began = time.monotonic()
    words = ["finetune", "classification", "--model", model, "--dataset", data, "--output", str(folder / "tuned")]
    if ladder([*words, *tuning]):
        raise SystemExit("ladder finetune failed")
    tuned = json.loads((folder / "tuned" / "finetuned.json").read_text(encoding="utf-8"))
    accuracy = 100 * tuned["metrics"]["fine_tuned"]["accuracy"]
    rows["pretrained, fine-tuned"] = (accuracy, tuned["count"]["score"], time.monotonic() - began)
    return rows


def main() -> int:
    """Print the table; the exit code says whether the order holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(BOX), help="default: the backbone in the box")
    parser.add_argument("--data", default="digits", help="labelled data set with a test or validation split")
    parser.add_argument("--output", help="folder for the results; default: a temporary one")
    parser.add_argument("--tuning", nargs=argparse.REMAINDER, default=[], help="more words for `ladder finetune`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.output or temporary)
        rows = measure(arguments.model, arguments.data, folder, arguments.tuning)
    print(f"\n{hardware()}, torch {versions()['torch']}; model {arguments.model}, data {arguments.data}")
    print(f"{'':28}{'accuracy':>9}{'images':>8}{'seconds':>9}")
    for name, (accuracy, images, seconds) in rows.items():
        print(f"{name:28}{accuracy:8.1f}%{images:8}{seconds:9.0f}")
    accuracies = [accuracy for accuracy, _, _ in rows.values()]
    ordered = accuracies == sorted(set(accuracies))
    print("in order: untrained < linear < fine-tuned" if ordered else "NOT in order")
    return 0 if ordered else 1


if __name__ == "__main__":
    raise SystemExit(main())
