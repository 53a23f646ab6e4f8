"""Flip single bits in what a run reads back, and kill runs: count what is noticed and what is lost.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/fault_injection.py --flips 200 --kills 20

A flip is noticed if the reader falls back or makes the file anew, with a message. It is harmless if
the content is still the same to the last bit, and else it is believed. Prints Markdown tables. Exit
code 1 if a file with a digest was believed, or a killed run ended otherwise than an unbroken one.
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from crgan_cli.config.compose import compose
from crgan_cli.data.cache import decode_cached
from crgan_cli.data.decoding import CentreDecoder
from crgan_cli.data.files import ImageFiles
from crgan_cli.evaluation.artefacts.detector import Detector
from crgan_cli.runs import checkpoint
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.record import read_history
from crgan_cli.system import cache
from crgan_cli.training.start import train_run

KIND = (
    "regularizer=cr",
    "dataset.fraction=0.002",
    "architecture.width=0.02",
    "batch_size=4",
    "steps=40",
    "ema.decay=0.9",
    "log.every=2",
    "samples.every=20",
    "samples.num=4",
    "checkpoint.every=5",
    "checkpoint.keep=3",
    "extractor.resolution=32",
    "metrics.measures=[kid]",
    "metrics.num_samples=8",
    "metrics.every=10",
    "seed=1",
    "device=cpu",
)


class Target(NamedTuple):
    """A file to damage, and how crgan reads it back."""

    name: str
    file: Path
    read: Callable[[], object]  # the content, or None if it is not taken from this file
    has_digest: bool = True


def train(out: Path) -> None:
    """Train, or resume, the tiny run in a folder. Prints nothing."""
    typed = [*KIND, f"out={out}"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train_run(compose(typed), typed, {}, None)


def fingerprint(value: object) -> str:
    """Return a SHA-256 (hex) of nested containers, tensors to the last bit."""
    digest = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, dict):
            part = [item for pair in part.items() for item in pair]
        if isinstance(part, list | tuple):
            digest.update(f"{len(part)} parts".encode())
            for each in part:
                add(each)
        elif isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


def describe_end(out: Path) -> str:
    """Return a SHA-256 (hex) of all that a run leaves, without what a clock measured."""
    run = RunDir(out)
    saved = [checkpoint.load(path) for path in (*run.list_checkpoints(), run.best)]
    result = run.read_result()
    lines = [
        {key: value for key, value in line.items() if not key.startswith("speed/")}
        for line in read_history(run)
    ]
    pictures = [(path.name, path.read_bytes()) for path in sorted(run.samples.iterdir())]
    ends = [result.get(key) for key in ("status", "step", "images_seen", "last", "best")]
    states = [(content["step"], content["states"]) for content in saved]
    return fingerprint([states, lines, pictures, ends])


# --- flips ---


def make_targets(folder: Path) -> list[Target]:
    """Train the run, and make one file of each kind."""
    train(folder / "run")
    run = RunDir(folder / "run")
    newest = run.list_checkpoints()[0]

    def read_checkpoint() -> object:
        found = checkpoint.load_latest(run.checkpoints)
        return found.content if found and found.path == newest else None

    (reference,) = cache.cache_folder("reference").glob("*.pt")
    detector = cache.cache_path("detectors", "cutout", "a detector")
    cache.save_cached(detector, {"weights": Detector(1, 32).state_dict()})
    root = folder / "images"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02}.png")
    files = ImageFiles(str(root))
    decoder = CentreDecoder(32, 3, None, False)

    def read_images() -> object:
        with counting_warnings() as count:
            decoded = decode_cached(files, files.entries, decoder)
        return None if count else (decoded.x.clone(), decoded.indices)

    read_images()
    (pixels_file,) = cache.cache_folder("datasets").glob("*/pixels.u8")

    def read_log() -> object:
        with counting_warnings() as count:
            lines = read_history(run)
        return None if count else lines

    return [
        Target("newest checkpoint", newest, read_checkpoint),
        Target("reference statistics", reference, lambda: cache.load_cached(reference)),
        Target("detector", detector, lambda: cache.load_cached(detector)),
        Target("decoded images", pixels_file, read_images),
        Target("their list of files", pixels_file.with_name("kept.json"), read_images),
        Target("metrics.jsonl", run.metrics, read_log, has_digest=False),
    ]


@contextmanager
def counting_warnings() -> Iterator[list[str]]:
    """Collect the warnings of crgan while the body runs."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("crgan_cli")
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


def flip_bits(target: Target, flips: int, chance: random.Random) -> Counter[str]:
    """Flip one random bit at a time, and count what the reader makes of it."""
    whole = target.file.read_bytes()
    expected = fingerprint(target.read())
    found: Counter[str] = Counter()
    for _ in range(flips):
        place = chance.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        target.file.write_bytes(damaged)
        content = target.read()
        same = content is not None and fingerprint(content) == expected
        found["noticed" if content is None else "harmless" if same else "believed"] += 1
        target.file.write_bytes(whole)
    return found


# --- kills ---


def kill_runs(folder: Path, kills: int, chance: random.Random) -> tuple[int, list[float]]:
    """Kill a run at random moments and resume it. Return how many end like one never stopped."""
    began = time.monotonic()
    run_in_process(folder / "whole")
    seconds = time.monotonic() - began
    expected = describe_end(folder / "whole")
    moments = sorted(chance.uniform(0, seconds) for _ in range(kills))
    equal = 0
    for number, moment in enumerate(moments):
        out = folder / f"killed{number}"
        run_in_process(out, moment)
        run_in_process(out)
        equal += describe_end(out) == expected
    return equal, moments


def run_in_process(out: Path, kill_after: float | None = None) -> None:
    """Train in a copy of this process, which has all imports. Send it SIGKILL after some time."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(out,))
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()


def main() -> int:
    """Inject the faults, and print what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=200, help="bits to flip in each file (200)")
    parser.add_argument("--kills", type=int, default=20, help="runs to kill (20)")
    parser.add_argument("--seed", type=int, default=0, help="of places and moments (0)")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    logging.getLogger("crgan_cli").addHandler(logging.NullHandler())
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CRGAN_CACHE"] = str(folder / "cache")
        equal, moments = kill_runs(folder, args.kills, chance)
        print("| one bit flipped in | bytes | flips | noticed | harmless | believed |")
        print("|---|---|---|---|---|---|")
        for target in make_targets(folder):
            size = target.file.stat().st_size
            found = flip_bits(target, args.flips, chance)
            counts = " | ".join(str(found[key]) for key in ("noticed", "harmless", "believed"))
            print(f"| {target.name} | {size} | {args.flips} | {counts} |", flush=True)
            failed |= target.has_digest and found["believed"] > 0
    print(f"\n{equal} of {len(moments)} killed runs ended as the one that was never stopped")
    return int(failed or equal < len(moments))


if __name__ == "__main__":
    sys.exit(main())
