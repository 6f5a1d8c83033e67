"""What a finished run's folder holds at its root, and `pretraining/` beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import folder_written_at_once
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
    """Write the native backbone, its preprocessor and the trainer's state, and `pretraining/`.

    Args:
        model: The trained model, without the wrapper of a distributed run.
        transform: Gives the preprocessor `size`, `mean` and `std`. None (the data set holds views): no preprocessor.
        state: Of the trainer.
        folder: The run's folder.
        pretraining: Write `pretraining/` too.
    """
    from modeling_ladder import save_native_backbone

    with folder_written_at_once(folder) as temporary:
        save_native_backbone(model, temporary)
        if pretraining:
            model.save_pretrained(temporary / PRETRAINING)
        if transform is not None:
            processor = image_processor(transform.size, tuple(transform.mean), tuple(transform.std))
            for place in (temporary, temporary / PRETRAINING) if pretraining else (temporary,):
                processor.save_pretrained(place)
        state.save_to_json(str(temporary / TRAINER_STATE))
