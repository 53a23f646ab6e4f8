"""The ways a command ends badly. Free of torch, so that a typing mistake is answered at once."""


class UserError(ValueError):
    """What the user typed or supplied cannot be used: exit code 2.

    The message names what was given, what was expected, and what to type instead.
    """


class RunFailed(RuntimeError):
    """The command was right and the run still failed (full disk, infinite loss): exit code 1."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run, which has been saved: exit code 128 + `signum`, and no next job."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """So that it comes whole from a job in another process."""
        return Interrupted, (self.signum, str(self))
