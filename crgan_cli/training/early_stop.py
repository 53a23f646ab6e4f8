"""When a run ends before its last step."""

from crgan_cli.system.numbers import format_metric


class EarlyStop:
    """Whether a metric no longer falls: Goodfellow et al. 2016, "Deep Learning", algorithm 7.1.

    An evaluation counts as a success if it is below the last success by more than `min_delta`.
    After `patience` evaluations in a row without one, the run ends. None: it never does.
    """

    def __init__(self, patience: int | None, min_delta: float, first: int = 0) -> None:
        """Evaluations before step `first` do not count: those of networks that still grow."""
        self.patience = patience
        self.min_delta = min_delta
        self.first = first
        self.lowest = float("inf")
        self.failures = 0  # evaluations since the last success

    def observe(self, value: float, step: int) -> None:
        """Take notice of the evaluation of a step."""
        if step < self.first:
            return
        if value < self.lowest - self.min_delta:
            self.lowest, self.failures = value, 0
        else:
            self.failures += 1

    @property
    def ended(self) -> bool:
        """Whether the run should end now."""
        return self.patience is not None and self.failures >= self.patience

    def describe(self, metric: str) -> str:
        """Why it ended, in words."""
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{metric} has not fallen below {format_metric(self.lowest)}{by} in the last "
            f"{self.failures} evaluation{'s'[: self.failures > 1]}"
        )

    def state_dict(self) -> dict[str, float]:
        return {"lowest": self.lowest, "failures": self.failures}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.lowest, self.failures = state_dict["lowest"], int(state_dict["failures"])
