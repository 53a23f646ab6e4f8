"""Print results and errors of a distributed run once, not once per rank."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from crgan_cli.errors import Interrupted, RunFailed
from crgan_cli.system.distributed import launch

REPORT_SECONDS = 1.0
"""torchrun kills all ranks when one ends: the silent ranks leave the reporting one this time."""


class PeerLost(RunFailed):
    """Another rank has ended while this one was waiting for it."""


@contextmanager
def mute_stdout_off_main() -> Iterator[None]:
    """Print results on rank 0 only."""
    if launch.is_main():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def name_lost_peer() -> Iterator[None]:
    """Raise PeerLost for what Gloo and NCCL raise when another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLost(
            "another process of this run has ended: its error is above, or it was killed, or it "
            "ran out of memory. To resume from the last checkpoint, start all again with the same "
            "command and out=FOLDER, the run's folder."
        ) from error


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only means that another rank is gone."""
    lost = ("gloo", "nccl", "Connection closed by peer", "Connection reset by peer")
    of_torch = isinstance(error, dist.DistError) or type(error) is RuntimeError
    return of_torch and any(word in str(error) for word in lost)


@contextmanager
def report_error_once(store: Store, rank: int) -> Iterator[None]:
    """Report an error that several ranks share on one of them.

    The same holds if one rank failed and the others lost it.
    """
    try:
        with name_lost_peer():
            yield
    except (Exception, Interrupted) as error:
        text = "" if isinstance(error, PeerLost) else f"{type(error).__name__}: {error}"
        reported = claim_report(store, rank, text)
        if reported is not None and text in ("", reported):
            time.sleep(REPORT_SECONDS)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise


def claim_report(store: Store, rank: int, text: str) -> str | None:
    """Return the error that another rank reports; None if this rank reports its own.

    A rank that has only lost another has no `text`, and waits some seconds for the other's.
    """
    with suppress(RuntimeError):  # the store's own process may be gone
        if not text:
            store.wait(["said"], timedelta(seconds=5))
        mine = f"{rank} {text}"
        first = (store.compare_set("said", "", mine) if text else store.get("said")).decode()
        return None if first == mine else first.partition(" ")[2]
    return None
