"""Which process this is among those that train one run."""

from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
)
from typing import NamedTuple


class World(NamedTuple):
    """This process among those of its run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # number of this process on its machine, and of its GPU


_world = World()


def world() -> World:
    """Who this process is."""
    return _world


@contextmanager
def as_world(them: World) -> Iterator[None]:
    """`world()` is `them` while the body runs."""
    global _world
    before, _world = _world, them
    try:
        yield
    finally:
        _world = before


def as_single_process() -> AbstractContextManager[None]:
    """While the body runs, this process counts as a run of its own, and waits for no other.

    For what each does by itself, such as drawing the images of one batch of an evaluation.
    """
    return as_world(World())
