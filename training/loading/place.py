"""Which process of a run this is, and the seed that all its processes share."""

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Place:
    """The seed of a run and one process's number in it; every order and every view is a function of them.

    Attributes:
        seed: Seed of orders and views, the same in every process.
        rank: Number of this process, from 0.
        world_size: Number of processes.

    Raises:
        UserError: `world_size` is below 1, or `rank` is not one of 0 ... world_size - 1.
    """

    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise UserError(f"world_size must be at least 1, not {self.world_size}")
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"rank must be in 0 ... {self.world_size - 1}, not {self.rank}")
