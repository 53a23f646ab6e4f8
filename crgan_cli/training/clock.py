"""How fast a run trains."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Measures the speed of training, without samples, metrics and checkpoints."""

    def __init__(self, step: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.step = step
        self.now = now
        self.began = now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the body."""
        before = self.now()
        yield
        self.began += self.now() - before

    def steps_per_second(self, step: int) -> float:
        """The speed since the last call."""
        now = self.now()
        speed = (step - self.step) / max(now - self.began, 1e-9)
        self.step, self.began = step, now
        return speed
