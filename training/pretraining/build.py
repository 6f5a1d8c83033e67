"""Build what a run needs from a resolved recipe: training arguments, model, data and views."""

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.backbones import named_backbone
from ..config.fields import unknown_name
from ..config.options import DataOptions, ModelOptions
from ..config.recipe import ResolvedRecipe
from ..errors import UserError, did_you_mean, near_names
from ..models.reference import hub_file, model_folder, split_revision, why_not_loaded
from ..models.verification import verified
from ..runs.data_files import MOST_LISTED
from ..runs.record import DatasetRecord, RunRecord
from ..runs.run_folder import PRETRAINING

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

    from ..config.arguments import LadderTrainingArguments
    from ..views.two_views import TwoViewTransform

_NOT_CONFIG = ("method", "backbone", "backbone_config", "from_model", "verify")
# Options of the views that have another name in the constructor.
_VIEW_ARGUMENTS = {"image_size": "size", "image_mean": "mean", "image_std": "std", "device_views": "device_mode"}


@dataclass
class Data:
    """The images of a run.

    Attributes:
        train: A `datasets` object.
        monitoring: Images to monitor the training with. None: a part of the training images is held out for this.
        records: One record for each training data set.
        notes: What the data sets were taken for, and what of them is left out, one line each.
        files: The files of each local training data set, as `runs.data_files` keeps them.
    """

    train: Any
    monitoring: Any
    records: list[DatasetRecord]
    notes: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def training_arguments(recipe: ResolvedRecipe, folder: Path) -> "LadderTrainingArguments":
    """Build the Trainer's arguments.

    Raises:
        UserError: transformers does not accept a value.
    """
    from ..config.arguments import LadderTrainingArguments

    values = {name: value for name, value in recipe.arguments.items() if value is not None}
    if "WORLD_SIZE" not in os.environ:  # one process has nobody to talk to, and accelerate would look for the others
        values.pop("ddp_backend", None)
    if values.get("resume_from_checkpoint"):
        raise UserError(
            f"resume_from_checkpoint: a run goes on by itself from the newest checkpoint in its --output ({folder}); "
            "to start another run from a checkpoint, give --from"
        )
    try:
        arguments = LadderTrainingArguments(output_dir=str(folder), **values)
        _check_reports(arguments.report_to)
        return arguments
    except UserError:
        raise
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the training arguments cannot be used: {reason}") from error


def _check_reports(report_to: Any) -> None:
    """Check that the tools that a run reports to exist and are installed; the Trainer would fail later."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise unknown_name(name, INTEGRATION_TO_CALLBACK, f"report_to: there is no tool {name!r}", list_known=True)
        if name not in get_available_reporting_integrations() and name not in ("flyte", "kubeflow"):
            raise UserError(f"report_to: {name} is not installed: `pip install {name}`, or leave report_to out")


def build_model(recipe: ResolvedRecipe) -> "LadderSiameseForPreTraining":
    """Build the pretraining model: a new one, or one from the checkpoint or backbone that `from_model` names.

    Raises:
        UserError: a field of the network is invalid, or the model to start from cannot be loaded.
    """
    from modeling_ladder import LadderSiameseForPreTraining

    options = recipe.model
    try:
        if options.from_model is not None:
            return _continued(options, _config_settings(options))
        return LadderSiameseForPreTraining(network_config(recipe))
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"the network cannot be built: {error}") from error


def network_config(recipe: ResolvedRecipe) -> "LadderSiameseConfig":
    """Build the configuration of a new network with all defaults; `from_model` is ignored.

    Raises:
        UserError: a field of the network is invalid.
    """
    from modeling_ladder import LadderSiameseConfig

    options = recipe.model
    try:
        backbone = backbone_values(options)
        make = LadderSiameseConfig if options.method == "ladder" else LadderSiameseConfig.byol
        return make(backbone_config=backbone, **_config_settings(options))
    except (ValueError, TypeError) as error:
        raise UserError(f"the network cannot be built: {error}") from error


def backbone_values(options: ModelOptions) -> dict[str, Any] | None:
    """Return the config of the backbone that `backbone` or `backbone_config` says; None if neither is given.

    Raises:
        UserError: both are given, or there is no such backbone.
    """
    if options.backbone is not None and options.backbone_config is not None:
        raise UserError("backbone and backbone_config both name a network: give one")
    if options.backbone_config is not None:
        values = {"model_type": "resnet", **options.backbone_config}
        _check_backbone_fields(values)
        return values
    if options.backbone is None:
        return None
    return named_backbone(options.backbone) or _config_of(options.backbone)


def _config_of(reference: str) -> dict[str, Any]:
    """Read the backbone's config of a model in a folder or on the Hub, without its weights."""
    from modeling_ladder.conversion import is_ladder_config, read_config_dict

    name, revision = split_revision(model_folder(reference))
    try:
        saved = read_config_dict(name, {"revision": revision})
    except OSError as error:
        raise UserError(f"--backbone {why_not_loaded(reference, error)}") from error
    values = dict(saved["backbone_config"] if is_ladder_config(saved) else saved)
    # What belongs to the saved weights, to a task or to another choice of stages is no part of the architecture.
    other = {"dtype", "torch_dtype", "architectures", "out_features", "out_indices", "_name_or_path", "stage_names"}
    return {name: value for name, value in values.items() if name not in other}


def _check_backbone_fields(backbone: dict[str, Any]) -> None:
    """Refuse a misspelt field: transformers would accept it and build the network with the default."""
    from transformers import CONFIG_MAPPING

    if backbone["model_type"] not in CONFIG_MAPPING:
        return
    kind = CONFIG_MAPPING[backbone["model_type"]]
    known = {item.name for item in fields(kind)} | set(kind.attribute_map)
    for name in backbone.keys() - known:
        near = near_names(name, known, cutoff=0.8)
        if near:
            raise UserError(f"backbone_config: unknown field {name!r}{did_you_mean(near)}")


def _config_settings(options: ModelOptions) -> dict[str, Any]:
    """Return the fields of `LadderSiameseConfig` that the options set."""
    settings = {
        item.name: getattr(options, item.name)
        for item in fields(ModelOptions)
        if item.name not in _NOT_CONFIG and getattr(options, item.name) is not None
    }
    if options.method == "simsiam":
        settings["target"] = "stop_gradient"
    return settings


def load_data(recipe: ResolvedRecipe, earlier: RunRecord | None = None) -> Data:
    """Open the training and monitoring images.

    Args:
        recipe: The recipe.
        earlier: The run that is to go on, if there is one: data sets of the Hub are read at the commits it began with.

    Raises:
        UserError: a data set or split does not exist, or holds no images.
    """
    from ..data.content import describe_files
    from ..data.internals import fingerprint_of
    from ..data.sources import hub_dataset, load_image_stream, local_files

    options = recipe.data
    names = [options.dataset] if isinstance(options.dataset, str) else list(options.dataset or [])
    if not names:
        raise UserError("no data set: give --dataset, or `dataset:` in the recipe")
    settings: dict[str, Any] = {
        "streaming": options.streaming,
        "image_column": options.image_column,
        "trust_paths": options.trust_paths,
        # The parts of a mixture, and the data set for monitoring, may have other columns.
        "only_if_there": len(names) > 1,
    }
    if len(names) == 1 and options.mix is not None:
        raise UserError("mix has no effect on one data set: give the shares of several, or take the field out")
    parts: list[Any] = []
    records: list[DatasetRecord] = []
    notes: list[str] = []
    files: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(names):
        saved = earlier.datasets[number] if earlier is not None and number < len(earlier.datasets) else None
        revision = options.revision
        if saved is not None and saved.hub and saved.revision and not options.accept_changed_data:
            _, newest = hub_dataset(name, options.revision)
            revision = saved.revision
            if newest is not None and newest != saved.revision:
                notes.append(f"{name}: the Hub has commit {newest} now; this run goes on with {revision}")
        part = load_image_stream(name, split=options.split, revision=revision, **settings)
        parts.append(part)
        local = local_files(name, options.split)
        if local is not None:
            files[name] = describe_files(*local, MOST_LISTED)
        hub, commit = hub_dataset(name, revision)
        records.append(
            DatasetRecord(
                name=name,
                hub=hub,
                split=options.split,
                revision=commit or revision,
                fingerprint=fingerprint_of(part),
                images=len(part) if hasattr(part, "__len__") else None,
            )
        )
    if options.revision is not None and not any(record.hub for record in records):
        notes.append(f"revision {options.revision} is not used: no data set is on the Hub")
    if len(parts) == 1:
        train = parts[0]
    else:
        from ..data.mixing import mix_streams

        train = mix_streams(parts, options.mix)
    monitoring = None
    if (found := monitoring_split(options, names[0], records[0].revision)) is not None:
        source, split, revision = found
        settings["only_if_there"] = True
        monitoring = load_image_stream(source, split=split, revision=revision, **settings)
    return Data(train, monitoring, records, list(dict.fromkeys(notes)), files)


def monitoring_split(options: DataOptions, first: str, revision: str | None) -> tuple[str, str, str | None] | None:
    """Find the images that monitor a run without being held out of its training data.

    Args:
        options: Of the run.
        first: Its first training data set.
        revision: The revision of that.

    Returns:
        (data set, split, revision): the evaluation set, or a validation or test split beside the training split; None
        if there is none.

    Raises:
        UserError: there is no such data set.
    """
    from ..data.sources import split_names

    source = options.eval_dataset or first
    revision = revision if source == first else None
    known = split_names(source, revision=revision)
    candidates: tuple[str, ...] = ("validation", "valid", "val", "test")
    split = next((name for name in candidates if name in known), None)
    if options.eval_dataset is not None and split is None:
        split = options.split
    if split is None or (source == first and split == options.split):
        return None
    return source, split, revision


def build_views(recipe: ResolvedRecipe) -> "TwoViewTransform":
    """Build the transform that makes the two views.

    Raises:
        UserError: an option of the views is invalid.
    """
    from ..images.value_range import check_range
    from ..views.two_views import TwoViewTransform

    settings = {_VIEW_ARGUMENTS.get(name, name): value for name, value in asdict(recipe.views).items()}
    if recipe.data.image_range is not None:
        settings["value_range"] = check_range(recipe.data.image_range, "image_range")
    try:
        return TwoViewTransform(**settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"the views cannot be made: {error}") from error


def _continued(options: ModelOptions, settings: dict[str, Any]) -> "LadderSiameseForPreTraining":
    """Load the model that `from_model` names, with the recipe's levels and heads."""
    from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
    from modeling_ladder.conversion import is_ladder_config, read_config_dict

    try:
        reference, where = _find_pretraining(str(options.from_model), options.verify)
        saved = read_config_dict(reference, where)
        wanted = backbone_values(options)
        if wanted is not None:
            _check_same_backbone(options, wanted, saved["backbone_config"] if is_ladder_config(saved) else saved)
        if is_ladder_config(saved):
            _check_same_heads(options, saved)
        if options.method != "ladder":
            backbone = saved["backbone_config"] if is_ladder_config(saved) else saved
            backbone = {key: value for key, value in backbone.items() if key != "dtype"}
            last = LadderSiameseConfig(backbone_config=backbone).stages[-1]
            settings = {**settings, "level_names": [last], "level_losses": ["global"], "level_weights": [1.0]}
        return LadderSiameseForPreTraining.from_pretrained(reference, **where, **settings)
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"--from {why_not_loaded(str(options.from_model), error)}") from error


def _find_pretraining(reference: str, verify: bool = False) -> tuple[str, dict[str, str]]:
    """Find the full checkpoint of a model, or its backbone if there is none.

    Returns:
        (folder or Hub name, arguments of `from_pretrained`).
    """
    folder = model_folder(reference)
    path = Path(folder)
    if path.is_dir():
        folder = verified(folder) if verify else folder
        inner = path / PRETRAINING
        return (str(inner) if (inner / "config.json").is_file() else folder), {}
    name, revision = split_revision(folder)
    where = {} if revision is None else {"revision": revision}
    if hub_file(name, f"{PRETRAINING}/config.json", revision):
        where["subfolder"] = PRETRAINING
    if verify:
        _, commit = split_revision(verified(folder, subfolder=where.get("subfolder")))
        where |= {} if commit is None else {"revision": commit}
    return name, where


def _check_same_heads(options: ModelOptions, saved: dict[str, Any]) -> None:
    """Check that the recipe's heads have the sizes of those in the checkpoint whose weights they get."""
    from modeling_ladder.configuration_ladder import HEAD_SIZES

    for name in HEAD_SIZES:
        value = getattr(options, name)
        if value is not None and saved.get(name) not in (None, value):
            raise UserError(
                f"--from {options.from_model} has {name} {saved[name]}, but the recipe says {value}; use the recipe "
                f"that it was trained with, or take the field out (--{name} null)"
            )


def _check_same_backbone(options: ModelOptions, wanted: dict[str, Any], saved: dict[str, Any]) -> None:
    """Check that the recipe's backbone is that of the model to start from."""
    field = "backbone" if options.backbone is not None else "backbone_config"
    for name, value in wanted.items():
        if name in saved and saved[name] != value:
            raise UserError(
                f"--from {options.from_model} has {name} {saved[name]}, but the recipe's {field} has {value}; "
                f"use the recipe that it was trained with, or take the field out (--{field} null)"
            )
