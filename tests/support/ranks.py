"""Functions called in several processes at once, as torchrun would start them, on the CPU."""

import os
import pickle
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from queue import Empty


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def in_processes(size: int, fn: Callable[[], object]) -> list[object]:
    """Return what `fn` returns in each of `size` processes, by rank. Not for lambdas."""
    context = get_context("spawn")
    answers = context.Queue()
    port = str(free_port())
    started = [
        context.Process(target=process, args=(rank, size, port, fn, answers))
        for rank in range(size)
    ]
    for each in started:
        each.start()
    try:
        found = dict(answer(answers, started) for _ in started)
    finally:
        for each in started:
            each.join(10)
            each.kill()
    failed = {rank: text.decode() for rank, (ended, text) in found.items() if not ended}
    assert not failed, failed
    return [pickle.loads(found[rank][1]) for rank in range(size)]


def answer(answers: Queue, started: list[SpawnProcess]) -> tuple[int, tuple[bool, bytes]]:
    """The next one; none comes from processes that have all ended."""
    while True:
        try:
            return answers.get(timeout=1)
        except Empty:
            codes = [each.exitcode for each in started]
            assert None in codes, f"processes ended without an answer, with {codes}"


def process(rank: int, size: int, port: str, fn: Callable[[], object], answers: Queue) -> None:
    """One of them."""
    warnings.simplefilter("error")
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    try:
        import torch

        from crgan_cli.system.distributed.setup import distributed_run

        torch.set_num_threads(1)
        with distributed_run():
            answer = fn()
        answers.put((rank, (True, pickle.dumps(answer))))  # a tensor's memory ends with us
    except BaseException:
        answers.put((rank, (False, traceback.format_exc().encode())))
        sys.exit(1)
