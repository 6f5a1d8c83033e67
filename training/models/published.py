"""Writing the files of a finished run: the native backbone at the root of its folder, and `pretraining/`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import folder_written_at_once, write_text
from ..runs.run_folder import PRETRAINING
from .processor import image_processor

if TYPE_CHECKING:
    from transformers import TrainerState

    from modeling_ladder import LadderSiameseForPreTraining

TRAINER_STATE = "trainer_state.json"


def publish(
    model: "LadderSiameseForPreTraining",
    transform: Any,
    state: "TrainerState",
    folder: Path,
    *,
    pretraining: bool = True,
) -> None:
    """Write the native backbone, its preprocessor, the trainer's state and `pretraining/`, all in one step.

    Args:
        model: The trained model, without the wrapper of a distributed run.
        transform: Has the `size`, `mean` and `std` of the preprocessor. None, if the data set holds views, writes none.
        state: State of the trainer.
        folder: The run's folder.
        pretraining: Also write the full pretraining checkpoint to `pretraining/`.
    """
    from modeling_ladder import save_native_backbone

    with folder_written_at_once(folder) as temporary:
        save_native_backbone(model, temporary)
        if pretraining:
            model.save_pretrained(temporary / PRETRAINING)
        if transform is not None:
            processor = image_processor(transform.size, tuple(transform.mean), tuple(transform.std))
            for target in (temporary, temporary / PRETRAINING) if pretraining else (temporary,):
                processor.save_pretrained(target)
            describe_images(temporary, processor)
        state.save_to_json(str(temporary / TRAINER_STATE))


def describe_images(folder: Path, processor: Any) -> None:
    """Write what a network was trained on into the config.json of a timm network; others have none of it there.

    Args:
        folder: Of the backbone.
        processor: Its image processor.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != "timm_wrapper":
        return
    size = processor.crop_size["height"]
    config["pretrained_cfg"] |= {
        "input_size": [config["num_channels"], size, size],
        "crop_pct": min(1.0, size / processor.size["shortest_edge"]),
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
    }
    write_text(path, json.dumps(config, indent=2) + "\n")
