"""Pushes to the Hub that run in one thread beside the training."""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils.hub import PushInProgress

from ..errors import UserError

if TYPE_CHECKING:
    from ladder_model_cards import PushResult

logger = logging.getLogger(__name__)


def push_folder(folder: Path, repository: str, **options: Any) -> "PushResult":
    """Push a run's folder in one commit.

    Args:
        folder: The folder, as DESIGN describes it.
        repository: Name on the Hub.
        **options: As for `ladder_model_cards.push`.

    Raises:
        UserError: the folder cannot be published, or the Hub refused it; the message says what to do next.
    """
    from ladder_model_cards import CardError, PushError, push

    try:
        return push(folder, repository, **options)
    except (CardError, PushError) as error:
        raise UserError(str(error)) from None


class BackgroundPushes:
    """Pushes folders one after the other while the training goes on.

    Attributes:
        in_progress: The pushes of checkpoints since the queue was last empty, as transformers' Trainer waits for them;
            None before the first.
    """

    def __init__(self) -> None:
        self.in_progress: PushInProgress | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def busy(self) -> bool:
        """Whether the push of a checkpoint is waiting or running."""
        return self.in_progress is not None and not self.in_progress.is_done()

    def push(self, folder: Path, repository: str, **options: Any) -> "Future[PushResult]":
        """Push a folder after all pushes that were given before.

        Args:
            folder: Must not change until the push is done.
            repository: Name on the Hub.
            **options: As for `ladder_model_cards.push`.

        Returns:
            A future of the result. It holds the `UserError` of a push that failed.
        """
        return self._submit(push_folder, folder, repository, **options)

    def push_checkpoint(self, copy: Path, repository: str, **options: Any) -> None:
        """Push the copy of a checkpoint, then remove the copy. A push that fails is logged as a warning.

        Args:
            copy: Folder that belongs to this push alone.
            repository: Name on the Hub.
            **options: As for `ladder_model_cards.push`.
        """
        if self.in_progress is None or self.in_progress.is_done():
            self.in_progress = PushInProgress([])
        self.in_progress.jobs.append(self._submit(_push_and_remove, copy, repository, **options))

    def _submit(self, function: Any, *arguments: Any, **options: Any) -> Future:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ladder-push")
        return self._thread.submit(function, *arguments, **options)


def _push_and_remove(copy: Path, repository: str, **options: Any) -> None:
    try:
        push_folder(copy, repository, **options)
    except UserError as error:
        logger.warning("%s; training goes on", error)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
