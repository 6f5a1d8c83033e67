"""Pretraining, evaluation and the command line of the Ladder Siamese Network.

Names are imported when first asked for, so that `ladder --help` need not wait for torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.arguments import LadderTrainingArguments
    from .data.sources import load_image_stream
    from .errors import TrainingStopped, UserError
    from .loading.loader import ViewLoader
    from .trainer.lars import Lars
    from .trainer.trainer import LadderTrainer
    from .views.two_views import TwoViewTransform

_HOMES = {
    "LadderTrainer": "trainer.trainer",
    "LadderTrainingArguments": "config.arguments",
    "Lars": "trainer.lars",
    "TrainingStopped": "errors",
    "TwoViewTransform": "views.two_views",
    "UserError": "errors",
    "ViewLoader": "loading.loader",
    "load_image_stream": "data.sources",
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
