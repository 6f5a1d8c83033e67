"""Read the files of a run's folder from which a card is made. Nothing is changed."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import CardError
from .values import is_number

MAX_JSON = 200 * 2**20
FIGURES = "figures"
PRETRAINING = "pretraining"
METHODS = ("ladder", "byol", "simsiam")


@dataclass
class Evaluation:
    """The measured results of one task on one data set, one file per seed.

    Attributes:
        task: "knn", "linear", "detection", "segmentation".
        dataset: Name of the data set.
        runs: The files' contents, one per seed.
    """

    task: str
    dataset: str
    runs: list[dict[str, Any]]

    @property
    def seeds(self) -> list[Any]:
        """The seeds of the runs."""
        return [run.get("seed") for run in self.runs]

    @property
    def metrics(self) -> dict[str, dict[str, list[float]]]:
        """Stage (or "all") to metric to a list with the finite value of each seed."""
        return self._of_all_seeds("metrics")

    @property
    def untrained(self) -> dict[str, dict[str, list[float]]]:
        """The same of the untrained network; empty if it was not measured."""
        return self._of_all_seeds("untrained")

    def _of_all_seeds(self, part: str) -> dict[str, dict[str, list[float]]]:
        found: dict[str, dict[str, list[float]]] = {}
        for run in self.runs:
            for stage, values in _by_stage(run.get(part)).items():
                for name, value in values.items():
                    if is_number(value):
                        found.setdefault(stage, {}).setdefault(name, []).append(float(value))
        return found


@dataclass
class RunFiles:
    """The content of a run's folder. What is missing is empty, and its section of the card is left out."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    pretraining_config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    comparison: dict[str, Any] = field(default_factory=dict)
    finetuned: dict[str, Any] = field(default_factory=dict)
    exported: dict[str, Any] = field(default_factory=dict)

    @property
    def _records(self) -> tuple[dict[str, Any], ...]:
        return self.run, self.finetuned, self.exported

    @property
    def license(self) -> str:
        """The licence of the weights, as the run, fine-tuning or export recorded it; "other" if nobody told it."""
        return str(next((record["license"] for record in self._records if record.get("license")), "other"))

    @property
    def started_from(self) -> dict[str, Any]:
        """The weights that training began with, or the export took: "model", "license", "imported"; empty if new."""
        found = next((record["started_from"] for record in self._records if record.get("started_from")), None)
        return found if isinstance(found, dict) else {}

    @property
    def datasets(self) -> list[dict[str, Any]]:
        """The data sets of the run. Each has a "name"; "hub" is its name on the Hub if it is there."""
        found = self.run.get("datasets") or self.run.get("dataset") or []
        rows = found if isinstance(found, list) else [found]
        rows = [row if isinstance(row, dict) else {"name": str(row)} for row in rows]
        return [row for row in rows if row.get("name")]

    @property
    def method(self) -> str:
        """ "ladder", "byol" or "simsiam"; empty if the folder does not say, such as that of an exported backbone."""
        told = str(self.run.get("method") or "").lower()
        if told:
            return told if told in METHODS else ""
        names = self.pretraining_config.get("level_names")
        if not names:
            return ""
        plain = len(names) == 1 and self.pretraining_config.get("level_losses") == ["global"]
        if not plain:
            return "ladder"
        return "simsiam" if self.pretraining_config.get("target") == "stop_gradient" else "byol"

    @property
    def imported(self) -> dict[str, Any]:
        """Where weights are from that were not trained here, as `ladder import` recorded it; else empty."""
        found = self.run.get("imported")
        return found if isinstance(found, dict) else {}

    @property
    def stages(self) -> list[str]:
        """Names of the backbone's stages, without the stem."""
        names = self.config.get("stage_names") or self.config.get("out_features") or []
        return [str(name) for name in names if name != "stem"]

    @cached_property
    def figures(self) -> list[str]:
        """File names of the figures of feature maps. They are drawn at the end of a run, which has the images."""
        folder = self.path / FIGURES
        names = sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []
        names.sort(key=lambda name: not name.startswith("pca"))
        return [name for name in names if re.fullmatch(r"(neighbours|pca)(-[\w.]+)?\.png", name)]


def read_run_files(folder: str | Path, *, unfinished: bool = False) -> RunFiles:
    """Read a run's folder.

    Args:
        folder: A run's folder, or any folder with a native backbone.
        unfinished: Accept a run that has written no backbone yet.

    Raises:
        CardError: There is no such folder, it has no config.json, or a file is not valid JSON or holds something else;
            the message names it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise CardError(f"{path} is no folder; give the folder of a run or of an exported backbone")
    if not (path / "config.json").is_file() and not (unfinished and (path / "run.json").is_file()):
        what = "a run" if unfinished else "a finished run"
        raise CardError(f"{path} holds no config.json; give the folder of {what} or of an exported backbone")
    evaluations: dict[tuple[str, str, str], Evaluation] = {}
    for file in sorted((path / "evaluation").glob("*.json")) if (path / "evaluation").is_dir() else []:
        data = _read(file)
        if not isinstance(data, dict) or not data.get("task") or not isinstance(data.get("metrics"), dict):
            raise CardError(f"{file} holds no evaluation (a task and its metrics); remove it or write it again")
        task, dataset = str(data["task"]), str(data.get("dataset", ""))
        key = (task, dataset, json.dumps(_comparable(data), sort_keys=True, default=str))
        evaluations.setdefault(key, Evaluation(task, dataset, [])).runs.append(data)
    # Two files with the same seed are one measurement under two names; they say nothing about the spread.
    for evaluation in evaluations.values():
        evaluation.runs = list({json.dumps(run.get("seed")): run for run in evaluation.runs}.values())
    state = _dictionary(path / "trainer_state.json") or _dictionary(_last_checkpoint(path) / "trainer_state.json")
    log = state.get("log_history")
    pretraining = _dictionary(path / PRETRAINING / "config.json")
    if unfinished and not pretraining:
        pretraining = _dictionary(_last_checkpoint(path) / "config.json")
    backbone = pretraining.get("backbone_config")
    return RunFiles(
        path=path,
        config=_dictionary(path / "config.json") or (backbone if isinstance(backbone, dict) else {}),
        preprocessor=_dictionary(path / "preprocessor_config.json"),
        pretraining_config=pretraining,
        run=_dictionary(path / "run.json"),
        log=[entry for entry in log if isinstance(entry, dict)] if isinstance(log, list) else [],
        evaluations=list(evaluations.values()),
        comparison=_dictionary(_comparison_file(path)),
        finetuned=_dictionary(path / "finetuned.json"),
        exported=_dictionary(path / "exported.json"),
    )


def read_comparison(folder: Path) -> dict[str, Any]:
    """Read the comparison.json that lies in a folder itself; empty without one.

    Raises:
        CardError: It is not valid JSON.
    """
    return _dictionary(folder / "comparison.json")


def read_text(path: Path) -> str:
    """Read a text file of a run's folder; empty where there is none.

    Raises:
        CardError: It is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8, or remove it") from None


def count_weights(folder: Path) -> int | None:
    """Count the parameters in a folder's safetensors files, without running statistics; None without files."""
    from modeling_ladder.checking import check_weights

    try:
        shapes = check_weights(folder)
    except ValueError:
        return None
    total = 0
    for name, shape in shapes.items():
        if name.rsplit(".", 1)[-1] not in ("running_mean", "running_var", "num_batches_tracked"):
            size = 1
            for length in shape:
                size *= length
            total += size
    return total


def _comparable(data: dict[str, Any]) -> list[Any]:
    """List what two measurements must share to be one measurement with two seeds."""
    protocol = data.get("protocol")
    protocol = {k: v for k, v in protocol.items() if k != "seed"} if isinstance(protocol, dict) else protocol
    return [data.get("split"), data.get("fit_split"), data.get("count"), protocol]


def _by_stage(metrics: Any) -> dict[str, dict[str, Any]]:
    """Sort metrics by stage. Metrics that are not nested belong to the whole network and come under "all"."""
    if not isinstance(metrics, dict):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found.setdefault(str(key), {}).update({str(name): number for name, number in value.items()})
        elif is_number(value):
            found.setdefault("all", {})[str(key)] = value
    return found


def _last_checkpoint(path: Path) -> Path:
    """Find the newest checkpoint-N of a run that has not finished; without one, return the folder itself."""
    found = [(int(p.name.split("-")[1]), p) for p in path.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    return max(found)[1] if found else path


def _comparison_file(path: Path) -> Path:
    """Find comparison.json in the run's folder, or in that of its comparison if the run is runs/METHOD/seed-N."""
    own, place = path / "comparison.json", path.resolve()
    if not own.is_file() and place.parent.parent.name == "runs" and place.name.startswith("seed-"):
        return place.parent.parent.parent / "comparison.json"
    return own


def _dictionary(path: Path) -> dict[str, Any]:
    value = _read(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise CardError(f"{path} holds no JSON object; remove it or write it again")
    return value


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON:
        raise CardError(f"{path} is larger than {MAX_JSON // 2**20} MiB; that is no file of a run")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is no valid JSON ({type(error).__name__}); remove it or write it again") from None
