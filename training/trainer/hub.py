"""What `LadderTrainer` publishes: this package's layout and card in whole revisions, never transformers' template."""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..errors import UserError
from ..models.published import publish
from ..runs.checkpoints import PARTIAL_PREFIX
from ..runs.run_folder import RUN_FILE, git_commit, hardware, now, read_run, versions, write_run

if TYPE_CHECKING:
    from ladder_model_cards import PushResult

KEEPS_CHECKPOINT = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)

logger = logging.getLogger(__name__)


class HubPushes:
    """The Hub side of `LadderTrainer`: a mixin over transformers' Trainer.

    A push while training goes on is one commit of the native backbone and its card, made beside the training from a
    copy. What `hub_strategy` means here: "end" pushes nothing before `push_to_hub` is called; "every_save" (default)
    pushes at each checkpoint; "checkpoint" sends pretraining/ too, to go on from; "all_checkpoints" also tags each push
    step-N. The Trainer's own checkpoint folders are pickles in part and are never sent.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, so that a token that may not write is found before the training.

        Raises:
            UserError: the Hub refused it; says what to do next.
        """
        from ladder_model_cards import PushError, make_repository

        if not self.is_world_process_zero():
            return
        args = self.args
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        private = args.hub_private_repo if private is None else private
        try:
            self.hub_model_id = make_repository(name, private=bool(private), token=token or args.hub_token)
        except PushError as error:
            raise UserError(str(error)) from None
        self.push_in_progress = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in transformers; training_args.bin is written without the access token."""
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super().save_model(output_dir, _internal_call=True)
        finally:
            self.args.hub_token = token
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save")

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
        """Write what is published to `output_dir`: native backbone, preprocessor, pretraining/, this package's card.

        A run.json that is there already (of `ladder pretrain`) is left as it is; without one, one is written.

        Args:
            language: No place on this card, as have tags, tasks, dataset_tags and dataset_args.
            license: Licence of the weights.
            tags: See `language`.
            model_name: Title of the card.
            finetuned_from: Hub name of the model that training started from.
            tasks: See `language`.
            dataset_tags: See `language`.
            dataset: Hub name or names of the training images.
            dataset_args: See `language`.

        Raises:
            UserError: the card cannot be written.
        """
        from ladder_model_cards import CardError, write_card

        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        self._write_published(folder, license=license, title=model_name, base=finetuned_from, datasets=dataset)
        try:
            write_card(folder)
        except CardError as error:
            raise UserError(str(error)) from None

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
        """Publish the online backbone with its card, in one commit, as `ladder push` does.

        Args:
            commit_message: Message of the commit.
            blocking: Wait for the end of the push; False gives a Future at once.
            token: Access token; None takes `hub_token`, then the usual one.
            revision: Branch; None takes `hub_revision`, then main.
            private: Make the repository private; None takes `hub_private_repo`.
            tag: Tag for the new revision.
            include_pretraining: Send pretraining/ too; None: as `hub_strategy` says.
            **card: See `create_model_card`.

        Returns:
            What the push did; None in other processes than the first.

        Raises:
            UserError: the folder cannot be published, or the Hub refused it; says what to do next.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        private = self.args.hub_private_repo if private is None else private
        options = {
            "private": bool(private),
            "token": token or self.args.hub_token,
            "revision": revision or self.args.hub_revision,
            "tag": tag,
            "message": commit_message,
            "include_pretraining": self._sends_pretraining if include_pretraining is None else include_pretraining,
        }
        if blocking:
            return self._push(Path(self.args.output_dir), options)
        return self._beside(self._push, Path(self.args.output_dir), options)

    @property
    def _sends_pretraining(self) -> bool:
        return self.args.hub_strategy in KEEPS_CHECKPOINT

    def _push(self, folder: Path, options: dict[str, Any]) -> "PushResult":
        from ladder_model_cards import CardError, PushError, push

        try:
            return push(folder, self.hub_model_id, **options)
        except (CardError, PushError) as error:
            raise UserError(str(error)) from None

    def _beside(self, function: Any, *arguments: Any) -> Future:
        """Run a function in one thread beside the training, after those that were given before."""
        if getattr(self, "_push_thread", None) is None:
            self._push_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ladder-push")
        return self._push_thread.submit(function, *arguments)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Publish what was just saved; a push that fails costs a warning, not the training."""
        args, step = self.args, self.state.global_step
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not args.hub_always_push:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        folder = Path(args.output_dir)
        copy = folder / f"{PARTIAL_PREFIX}push-{step}"
        self._write_published(copy, pretraining=self._sends_pretraining, earlier=folder)
        options = {
            "private": bool(args.hub_private_repo),
            "token": args.hub_token,
            "revision": args.hub_revision,
            "tag": f"step-{step}" if args.hub_strategy == HubStrategy.ALL_CHECKPOINTS else None,
            "message": f"Training in progress, step {step}",
            "include_pretraining": self._sends_pretraining,
            "report": logger.info,
        }
        job = self._beside(self._push_and_remove, copy, options)
        if busy:
            self.push_in_progress.jobs.append(job)
        else:
            self.push_in_progress = PushInProgress([job])

    def _push_and_remove(self, copy: Path, options: dict[str, Any]) -> None:
        try:
            self._push(copy, options)
        except UserError as error:
            logger.warning("%s; training goes on", error)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _write_published(
        self, folder: Path, *, pretraining: bool = True, earlier: Path | None = None, **facts: Any
    ) -> None:
        """A run's folder as DESIGN says, from the trainer as it stands.

        Args:
            folder: Gets the files, each whole.
            pretraining: Write pretraining/ too.
            earlier: The run's own folder, whose run.json and hand-written section of the card are taken along.
            **facts: See `_describe`.
        """
        publish(self.pretraining_model, self.transform, self.state, folder, pretraining=pretraining)
        for name in (RUN_FILE, "README.md") if earlier is not None else ():
            if (earlier / name).is_file():
                shutil.copy(earlier / name, folder / name)
        run = read_run(folder)
        if run is None or run["recipe"].get("name") is None:
            told = {name: value for name, value in self._describe(**facts).items() if value or name not in (run or {})}
            run = (run or {}) | told
        elif earlier is None:
            return
        seen = self.state.global_step * self.args.global_batch_size
        write_run(folder, run | {"steps": self.state.global_step, "images_seen": seen})

    def _describe(
        self,
        *,
        license: str | None = None,
        title: str | None = None,
        base: str | None = None,
        datasets: str | list[str] | None = None,
    ) -> dict[str, Any]:
        """The content of run.json, of what a trainer knows without a recipe."""
        args, state, config = self.args, self.state, self.pretraining_model.config
        names = [datasets] if isinstance(datasets, str) else list(datasets or [])
        seconds = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
        done = 0 < state.max_steps <= state.global_step
        values = {"optimizer": args.optimizer, "learning_rate": args.peak_learning_rate}
        values |= {"weight_decay": args.weight_decay, "from_model": base}
        values |= {"image_size": getattr(self.transform, "size", None)}
        method = "ladder"
        if config.levels[:-1] == [] and config.levels[0][:2] == (config.stages[-1], "global"):
            method = "simsiam" if config.target == "stop_gradient" else "byol"
        return {
            "status": "finished" if done else "running",
            "reason": None,
            "method": method,
            "license": license,
            "title": title,
            "recipe": {"name": None, "text": "", "values": {k: v for k, v in values.items() if v is not None}},
            "seed": args.seed,
            "datasets": [{"name": name, "hub": name} for name in names],
            "batch_size": args.global_batch_size,
            "seconds": sum(seconds) if seconds else None,
            "hardware": hardware(),
            "versions": versions(),
            "git_commit": git_commit(),
            "finished": now() if done else None,
        }


__all__ = ["HubPushes"]
