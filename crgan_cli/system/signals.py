"""The signals by which somebody asks a run to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP go to `handler` while the body runs; not SIGHUP under nohup."""
    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # a terminal that closes
    kinds = [signal.SIGINT, signal.SIGTERM]
    kinds += [kind for kind in hangup if signal.getsignal(kind) != signal.SIG_IGN]  # nohup
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, earlier)
