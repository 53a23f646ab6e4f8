"""What asks a run to stop, and is heard between two steps."""

import signal
import time
from contextlib import AbstractContextManager
from types import FrameType

from crgan_cli.errors import Interrupted
from crgan_cli.system.distributed.objects import StopFlag
from crgan_cli.system.signals import handle_signals

ONE_SIGNAL_SECONDS = 0.5
"""A Ctrl-C reaches a sweep's jobs twice, from the terminal and from the sweep: it counts once."""


class StopSignal:
    """Stop between two steps on Ctrl-C, SIGTERM or SIGHUP; on a second signal, at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.received_at = 0.0
        self.poll = StopFlag()

    def handling_signals(self) -> AbstractContextManager[None]:
        """Handles the signals while the body runs."""
        return handle_signals(self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self.signum is not None and now - self.received_at > ONE_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        if self.signum is None:
            self.signum, self.received_at = signum, now

    def check(self) -> None:
        """Raise Interrupted if any process of the run has received a signal."""
        if self.poll(self.signum is not None):
            raise Interrupted(self.signum or signal.SIGTERM)
