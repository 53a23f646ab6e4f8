"""How fast a run trains."""

from collections.abc import Callable


class Clock:
    """Measures the speed of training."""

    def __init__(self, step: int, seconds: Callable[[], float]) -> None:
        """`seconds` tells the time, which stands still in what is no training."""
        self.step = step
        self.seconds = seconds
        self.began = seconds()

    def steps_per_second(self, step: int) -> float:
        """The speed since the last call."""
        now = self.seconds()
        speed = (step - self.step) / max(now - self.began, 1e-9)
        self.step, self.began = step, now
        return speed
