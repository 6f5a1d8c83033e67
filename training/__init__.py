"""Pretraining, evaluation and the command line of the Ladder Siamese Network.

Names are imported when first asked for, so that `ladder --help` need not wait for torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import LadderTrainingArguments
    from .errors import TrainingStopped, UserError
    from .lars import Lars
    from .loader import ViewLoader
    from .streams import load_image_stream
    from .trainer import LadderTrainer
    from .views import TwoViewTransform

_HOMES = {
    "LadderTrainer": "trainer",
    "LadderTrainingArguments": "arguments",
    "Lars": "lars",
    "TrainingStopped": "errors",
    "TwoViewTransform": "views",
    "UserError": "errors",
    "ViewLoader": "loader",
    "load_image_stream": "streams",
}

__all__ = [
    "LadderTrainer",
    "LadderTrainingArguments",
    "Lars",
    "TrainingStopped",
    "TwoViewTransform",
    "UserError",
    "ViewLoader",
    "load_image_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
