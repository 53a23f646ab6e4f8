"""The rank of this process in a distributed run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple


class World(NamedTuple):
    """The rank of this process and the number of processes, named as torchrun names them."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # rank on this machine, and index of the GPU


_world = World()


def world() -> World:
    """Return the rank of this process and the number of processes."""
    return _world


@contextmanager
def as_world(new: World) -> Iterator[None]:
    """Make `world()` return `new` while the body runs."""
    global _world
    before, _world = _world, new
    try:
        yield
    finally:
        _world = before


def as_single_process() -> AbstractContextManager[None]:
    """Act as a single-process run while the body runs: wait for no other rank.

    For work that each rank does alone, such as generating its batch of an evaluation.
    """
    return as_world(World())
