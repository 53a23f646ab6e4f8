"""What the processes of one run say: results once, and an error once, though several have it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from crgan_cli.errors import Interrupted, RunFailed
from crgan_cli.system.distributed import launch


@contextmanager
def mute_stdout_off_main() -> Iterator[None]:
    """Results are printed by the first process alone."""
    if launch.is_main():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


REPORT_SECONDS = 1.0
"""torchrun ends all processes when one has ended: the silent ones give that time to the other."""


class PeerLost(RunFailed):
    """This process waits for one that has ended."""


@contextmanager
def name_lost_peer() -> Iterator[None]:
    """What Gloo and NCCL say of a process that has ended, in words: raises Lost."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLost(
            "another process of this run has ended: what it said is above, or it was killed, or "
            "ran out of memory. To go on from the last checkpoint, start all again with the same "
            "command and out=FOLDER, the run's folder."
        ) from error


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says no more than that another process is gone."""
    lost = ("gloo", "nccl", "Connection closed by peer", "Connection reset by peer")
    of_torch = isinstance(error, dist.DistError) or type(error) is RuntimeError
    return of_torch and any(word in str(error) for word in lost)


@contextmanager
def report_error_once(store: Store, rank: int) -> Iterator[None]:
    """Of an error that several processes have, one speaks; so too where one failed and the others
    have lost it."""
    try:
        with name_lost_peer():
            yield
    except (Exception, Interrupted) as error:
        text = "" if isinstance(error, PeerLost) else f"{type(error).__name__}: {error}"
        said = claim_report(store, rank, text)
        if said is not None and text in ("", said):
            time.sleep(REPORT_SECONDS)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 2)
        raise


def claim_report(store: Store, rank: int, text: str) -> str | None:
    """What another process is about to say; None where this one is the first to speak.

    A process that has only lost another, and so has no `text`, waits for its words a while.
    """
    with suppress(RuntimeError):  # the store's own process may be gone
        if not text:
            store.wait(["said"], timedelta(seconds=5))
        mine = f"{rank} {text}"
        said = (store.compare_set("said", "", mine) if text else store.get("said")).decode()
        return None if said == mine else said.partition(" ")[2]
    return None
