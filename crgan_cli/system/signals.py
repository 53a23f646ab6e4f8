"""Handle the signals that ask a run to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C, SIGTERM and SIGHUP with `handler` while the body runs.

    In another thread than the main one Python allows no handlers, so none of them is heard there.
    """
    kinds = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        kinds.append(signal.SIGHUP)  # the terminal closes; ignored under nohup
    if threading.current_thread() is not threading.main_thread():
        kinds = []
    # None: not set from Python, so it could not be set again
    before = {each: old for each in kinds if (old := signal.getsignal(each)) is not None}
    for kind in before:
        signal.signal(kind, handler)
    try:
        yield
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, earlier)
