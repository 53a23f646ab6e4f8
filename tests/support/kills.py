"""Runs that are stopped at some call of some method."""

from collections.abc import Callable


class Killed(BaseException):
    """Stands in for kill -9: nothing catches it."""


def nth_call(n: int, method: Callable, act: Callable[[], None]) -> Callable:
    """The method, with `act` before its n-th call."""
    count = 0

    def counting(*args, **kwargs):
        nonlocal count
        count += 1
        if count == n:
            act()
        return method(*args, **kwargs)

    return counting


def kill() -> None:
    raise Killed


def raising(error: BaseException) -> Callable[[], None]:
    """What raises an error."""

    def act() -> None:
        raise error

    return act
