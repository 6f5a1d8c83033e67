"""How chunks begin at batch boundaries again after an unreadable image, although workers are ahead."""

from typing import Any, cast

import torch


class Realignment:
    """Short chunks that are planned while workers run; the training process writes them, and workers read them.

    A chunk has as many positions as a batch has images, so a batch is one chunk, in the shared memory where its worker
    put it. After an unreadable image every later batch would be put together from two chunks, a copy in the training
    process. The training process therefore plans one chunk of as many positions as images are missing. Batches do not
    depend on where chunks end. The plan is made for a turn that no worker can have begun, so all agree on it.

    Args:
        workers: Number of workers.
        ahead: Chunks that a worker makes in advance; 0 if they are made in this process.
    """

    def __init__(self, workers: int, ahead: int) -> None:
        self._distance = workers * ahead + 1
        self._plan = torch.full((4 * (self._distance + workers), 3), -1, dtype=torch.long)
        if ahead:
            cast(Any, self._plan).share_memory_()

    def plan(self, turn: int, pass_index: int, missing: int) -> None:
        """Plan a short chunk, after the chunk of `turn` came without `missing` of its images.

        A worker is asked for a chunk when an earlier one of its own is taken; so when the chunk of `turn` has been
        taken, no worker has been asked for one after turn + workers * ahead, and it sees the plan when it is.

        Args:
            turn: Number of the chunk, counted over all workers since they started.
            pass_index: Its pass; in the next one chunks begin at batch boundaries anyway.
            missing: Unreadable images in it.
        """
        if missing:
            at = turn + self._distance
            self._plan[at % len(self._plan)] = torch.tensor([at, pass_index, missing])

    def length(self, turn: int, pass_index: int, usual: int) -> int:
        """Positions of a chunk: `usual`, unless another length is planned for it."""
        planned, planned_pass, length = self._plan[turn % len(self._plan)].tolist()
        return min(length, usual) if (planned, planned_pass) == (turn, pass_index) else usual
