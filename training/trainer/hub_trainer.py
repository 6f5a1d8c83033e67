"""`HubTrainer`: pushes complete revisions in this package's layout, with its card instead of transformers' template."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import HubStrategy

from modeling_ladder import LadderSiameseForPreTraining

from ..errors import UserError, system_error
from ..files import PARTIAL_PREFIX, remove
from ..runs.agreement import chosen_by_first, patient_group
from .background_pushes import BackgroundPushes, push_folder
from .publishing import TrainingRun, write_published

if TYPE_CHECKING:
    from ladder_model_cards import PushResult

KEEPS_CHECKPOINT = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)

logger = logging.getLogger(__name__)


class HubTrainer(Trainer):
    """transformers' Trainer with this package's way of publishing.

    A push during training is one commit of the native backbone and its card. It is made from a copy, by
    `BackgroundPushes`. The values of `hub_strategy` mean:

    - "end": nothing is pushed until `push_to_hub` is called;
    - "every_save" (default): each checkpoint is pushed;
    - "checkpoint": as before, with `pretraining/`, to continue from;
    - "all_checkpoints": as before, and each push is tagged step-N.

    The Trainer's own checkpoint folders hold pickles and are never pushed.

    Args:
        transform: Makes the two views, or None.
        **kwargs: As in transformers.
    """

    def __init__(self, *, transform: Callable[..., dict[str, Tensor]] | None = None, **kwargs: Any) -> None:
        self.transform = transform
        self._pushes = BackgroundPushes()
        super().__init__(**kwargs)

    @property
    def pretraining_model(self) -> LadderSiameseForPreTraining:
        """The model without any wrapper of a distributed run."""
        return self.accelerator.unwrap_model(self.model)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository before training, so that a token without write access fails at once.

        Every process must call it.

        Raises:
            UserError: the Hub refused it. The message says what to do next.
        """
        from ladder_model_cards import PushError, make_repository

        args = self.args
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        private = args.hub_private_repo if private is None else private

        def make() -> str:
            try:
                return make_repository(name, private=bool(private), token=token or args.hub_token)
            except PushError as error:
                raise UserError(str(error)) from None

        self.hub_model_id = chosen_by_first(make, patient_group())

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. If the training is interrupted or fails, so are the pushes that have not begun."""
        try:
            return super().train(*args, **kwargs)
        except BaseException:
            self._pushes.end()
            raise

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the folder that `ladder pretrain` leaves: native backbone, preprocessor, `pretraining/`, card.

        Args:
            output_dir: Folder that gets the files. Default: the trainer's own.
            _internal_call: Used by the trainer for its checkpoints, which get the complete model as transformers
                writes it, but without secrets in training_args.bin.

        Raises:
            UserError: the card cannot be written; or, with `push_to_hub`, the Hub refused the push.
        """
        if _internal_call:
            with _without_secrets(self.args):
                super().save_model(output_dir, _internal_call=True)
            return
        own = Path(self.args.output_dir)
        folder = own if output_dir is None else Path(output_dir)
        if folder.resolve() != own.resolve() or not self.args.push_to_hub:
            self._write_folder(folder)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save")  # writes the trainer's own folder first

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write what is published to `output_dir`: native backbone, preprocessor, `pretraining/` and the card.

        An existing `run.json` of `ladder pretrain` is kept; otherwise one is written.

        Args:
            language: Ignored: this card has no such field.
            license: Licence of the weights.
            tags: Ignored.
            model_name: Title of the card.
            finetuned_from: Hub name of the model that training started from.
            tasks: Ignored.
            dataset_tags: Ignored.
            dataset: Hub name or names of the training images.
            dataset_args: Ignored.

        Raises:
            UserError: the card cannot be written.
        """
        self._write_folder(
            Path(self.args.output_dir), license=license, title=model_name, base=finetuned_from, datasets=dataset
        )

    def _write_folder(self, folder: Path, **facts: Any) -> None:
        """Write everything that is published, with its card, in the main process. Every process must call it.

        Args:
            folder: The trainer's own folder, or one that gets a copy.
            **facts: See `publishing.describe`.

        Raises:
            UserError: the card cannot be written.
        """
        from ladder_model_cards import CardError, write_card

        def write() -> None:
            own = Path(self.args.output_dir)
            earlier = None if folder.resolve() == own.resolve() else own
            write_published(self._training_run, folder, earlier=earlier, **facts)
            try:
                write_card(folder)
            except CardError as error:
                raise UserError(str(error)) from None

        chosen_by_first(write)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        tag: str | None = None,
        include_pretraining: bool | None = None,
        **card: Any,
    ) -> "PushResult | Future[PushResult] | None":
        """Publish the online backbone with its card, in one commit, as `ladder push` does. Every process must call it.

        Args:
            commit_message: Message of the commit.
            blocking: Wait until the push is done. If False, return a Future at once; the process waits for the push
                before it ends.
            token: Access token. Default: `hub_token`, then the one that huggingface_hub knows.
            revision: Branch. Default: `hub_revision`, then main.
            private: Make the repository private. Default: `hub_private_repo`.
            tag: Tag for the new revision.
            include_pretraining: Push `pretraining/` too. Default: as `hub_strategy` says.
            **card: See `create_model_card`.

        Returns:
            What the push did. If not `blocking`, None in all processes but the first.

        Raises:
            UserError: the folder cannot be published, or the Hub refused it. The message says what to do next.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.create_model_card(**card)
        private = self.args.hub_private_repo if private is None else private
        folder, name = Path(self.args.output_dir), str(self.hub_model_id)
        options = {
            "private": bool(private),
            "token": token or self.args.hub_token,
            "revision": revision or self.args.hub_revision,
            "tag": tag,
            "message": commit_message,
            "include_pretraining": self.sends_pretraining if include_pretraining is None else include_pretraining,
        }
        if not blocking:
            return self._pushes.push(folder, name, **options) if self.is_world_process_zero() else None

        def push() -> "PushResult":
            self._finish_current_push()
            return push_folder(folder, name, **options)

        return chosen_by_first(push, patient_group())

    def _finish_current_push(self) -> None:
        """Wait for the pushes of checkpoints; once the process was asked to end, those that fail are not repeated."""
        self._pushes.wait(lambda: self._asked_to_end)

    @property
    def _asked_to_end(self) -> bool:
        return False

    @property
    def sends_pretraining(self) -> bool:
        """Whether pushes send `pretraining/` too, as `hub_strategy` says."""
        return self.args.hub_strategy in KEEPS_CHECKPOINT

    @property
    def _training_run(self) -> TrainingRun:
        return TrainingRun(self.pretraining_model, self.transform, self.state, self.args)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Publish what was just saved. A push that fails is a warning; it does not end the training."""
        args, step = self.args, self.state.global_step
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if self._pushes.busy and not args.hub_always_push:
            logger.warning(
                "step %d is not pushed: the push of %s has not ended; hub_always_push true pushes every checkpoint",
                step,
                self._pushes.busy,
            )
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        folder = Path(args.output_dir)
        copy = folder / f"{PARTIAL_PREFIX}push-{step}"
        try:
            write_published(self._training_run, copy, pretraining=self.sends_pretraining, earlier=folder)
        except Exception as error:
            if (reason := system_error(error)) is None:
                raise
            remove(copy)
            logger.warning("step %d is not pushed: no copy of it can be written: %s", step, reason)
            return
        self._pushes.push_checkpoint(
            step,
            copy,
            str(self.hub_model_id),
            private=bool(args.hub_private_repo),
            token=args.hub_token,
            revision=args.hub_revision,
            tag=f"step-{step}" if args.hub_strategy == HubStrategy.ALL_CHECKPOINTS else None,
            message=f"Training in progress, step {step}",
            include_pretraining=self.sends_pretraining,
            report=logger.info,
        )


@contextlib.contextmanager
def _without_secrets(arguments: Any) -> Iterator[None]:
    """While the block runs, training arguments have no token, and no secrets in their texts."""
    from ladder_model_cards.secrets import hide_in_values

    texts = {name: value for name, value in vars(arguments).items() if isinstance(value, str | list | dict)}
    shown = {**hide_in_values(texts), "hub_token": None}
    changed = {name: value for name, value in texts.items() if shown[name] != value}
    try:
        for name in changed:
            setattr(arguments, name, shown[name])
        yield
    finally:
        for name, value in changed.items():
            setattr(arguments, name, value)
