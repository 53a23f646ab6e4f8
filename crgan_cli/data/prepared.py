"""Decode a large set into one file, in shards: a preparation that was killed goes on where it was.

A folder holds `pixels.u8`, (N, C, H, W) uint8, `shards.jsonl` with a line for each shard that is
written, and at the end `complete.json`. A shard is consecutive images of the source, so a tar is
read as it lies; their places in the file are shuffled, always alike, so that images that follow
each other there have nothing in common. The SHA-256 of the pixels is made from those of the shards,
so that nobody has to read them again: a start compares a sample (`cache.sample_digest`).
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock

from crgan_cli.data.cache import REDUCED_FORMAT, explain_disk_errors, sample_digest
from crgan_cli.data.decode import DECODE_ERRORS, quiet_pillow
from crgan_cli.data.decoding import format_names, format_reason
from crgan_cli.data.files import require_damage
from crgan_cli.data.pixel_files import StoredPixels
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.atomic import write_json
from crgan_cli.system.cache import cache_folder
from crgan_cli.system.numbers import format_bytes
from crgan_cli.system.progress import EvalProgress
from crgan_cli.system.threads import count_cores

SHARD = 512
"""Images whose work is lost by a kill, at most, for each of the two shards under way."""

ORDER_SEED = 0

log = logging.getLogger(__name__)

DecodeImage = Callable[[int], np.ndarray]
"""Number of an image in the source -> (C, H, W) uint8. Raises one of DECODE_ERRORS. Any thread."""


class Work(NamedTuple):
    """What there is to decode."""

    decode: DecodeImage
    names: Sequence[str]  # of the images, for errors
    labels: np.ndarray  # (N,) int64
    where: str  # for errors


class Prepared(NamedTuple):
    """The pixels in their places, and their labels."""

    pixels: StoredPixels
    labels: np.ndarray  # (N,) int64


def prepare_pixels(
    facts: object, image_shape: tuple[int, int, int], list_work: Callable[[], Work]
) -> Prepared:
    """Open a set that was prepared before, or prepare it. `facts`, of JSON, identify it.

    `list_work` is called only for what is not complete. Raises UserError for unreadable images or
    an unusable cache folder, RunFailed for a full disk.
    """
    record = json.dumps([REDUCED_FORMAT, SHARD, ORDER_SEED, image_shape, facts], allow_nan=False)
    key = hashlib.sha256(record.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    folder = cache_folder("datasets") / key
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # One process prepares. The others wait for the lock, then find it complete.
        with FileLock(folder.with_suffix(".lock")):
            opened = open_prepared(folder, image_shape)
            if opened is None:
                Preparation(folder, image_shape, list_work()).run()
                opened = open_prepared(folder, image_shape)
    assert opened is not None
    return opened


def open_prepared(folder: Path, image_shape: tuple[int, int, int]) -> Prepared | None:
    """Open what a preparation has completed; None if it has not, or if it is damaged."""
    path = folder / "pixels.u8"
    try:
        known = json.loads((folder / "complete.json").read_text("utf-8"))
        labels = np.load(folder / "labels.npy")
        if known["sample"] != sample_digest(labels.tolist(), path):
            raise ValueError("its SHA-256 is another")
        shape = (len(labels), *image_shape)
        return Prepared(StoredPixels(path, shape, known["sha256"]), labels)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, EOFError) as error:
        log.warning("%s is damaged (%s): its images are decoded again", folder, error)
        for name in ("complete.json", "shards.jsonl"):
            (folder / name).unlink(missing_ok=True)
        return None


class Preparation:
    """Decodes what is not decoded yet."""

    def __init__(self, folder: Path, image_shape: tuple[int, int, int], work: Work) -> None:
        self.folder = folder
        self.image_shape = image_shape
        self.work = work
        self.count = len(work.names)
        self.bytes = math.prod(image_shape)  # of an image
        # RandomState: NumPy guarantees that its stream never changes
        self.places = np.random.RandomState(ORDER_SEED).permutation(self.count)
        self.firsts = range(0, self.count, SHARD)

    def run(self) -> None:
        """Decode, and complete the folder. UserError if images are unreadable: all others stay."""
        digests = self.read_journal()
        left = [first for first in self.firsts if first not in digests]
        done = self.count - sum(map(self.size, left))
        if done:
            log.info("%s: going on at image %d of %d", self.folder, done, self.count)
        pixels = self.folder / "pixels.u8"
        self.require_space(pixels)
        unreadable: list[str] = []
        with (
            EvalProgress(None, "preparing images") as progress,
            open(pixels, "r+b" if pixels.exists() else "w+b") as file,
            open(self.folder / "shards.jsonl", "a", encoding="utf-8") as journal,
            quiet_pillow(),
        ):
            file.truncate(self.count * self.bytes)
            total, decoded = self.count - done, 0
            for first, images in self.decode_shards(left):
                broken = [each for each in images if isinstance(each, str)]
                unreadable += broken
                if not broken:
                    digest = self.write_shard(file, first, images)
                    line = json.dumps({"first": first, "sha256": digest}, allow_nan=False)
                    print(line, file=journal, flush=True)
                    digests[first] = digest
                decoded += len(images)
                progress.show(decoded, total)
        self.require_readable(unreadable)
        self.complete([digests[first] for first in self.firsts])

    def size(self, first: int) -> int:
        """The number of images of a shard."""
        return min(SHARD, self.count - first)

    def read_journal(self) -> dict[int, str]:
        """First image of each written shard -> its SHA-256. A line cut by a kill does not count."""
        digests: dict[int, str] = {}
        path = self.folder / "shards.jsonl"
        if not path.exists() or not (self.folder / "pixels.u8").exists():
            path.unlink(missing_ok=True)
            return {}
        content = path.read_text("utf-8", errors="replace")
        for line in content.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                digests[int(entry["first"])] = str(entry["sha256"])
        if content and not content.endswith("\n"):
            with path.open("a", encoding="utf-8") as journal:
                journal.write("\n")
        return digests

    def require_space(self, pixels: Path) -> None:
        """Raise RunFailed if the disk cannot hold the pixels: now, and not after hours."""
        # st_blocks: the file has its final length from the start, and holes
        used = pixels.stat().st_blocks * 512 if pixels.exists() and os.name == "posix" else 0
        needed, free = self.count * self.bytes - used, shutil.disk_usage(self.folder).free
        if needed > free:
            raise RunFailed(
                f"The {self.count} decoded images take {format_bytes(needed)} more, and "
                f"{self.folder} has {format_bytes(free)} free. Free space there, or set the "
                "environment variable CRGAN_CACHE to another folder."
            )

    def decode_shards(self, firsts: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray | str]]]:
        """Yield the images of each shard, or why they are unreadable. The next one is under way."""
        with ThreadPoolExecutor(count_cores()) as pool:

            def submit(first: int) -> tuple[int, list[Future[np.ndarray | str]]]:
                numbers = range(first, first + self.size(first))
                return first, [pool.submit(self.decode_one, number) for number in numbers]

            waiting = iter(firsts)
            under_way = deque(map(submit, islice(waiting, 2)))
            try:
                while under_way:
                    first, futures = under_way.popleft()
                    yield first, [future.result() for future in futures]
                    under_way.extend(map(submit, islice(waiting, 1)))
            finally:
                pool.shutdown(cancel_futures=True)

    def decode_one(self, number: int) -> np.ndarray | str:
        """Return the pixels of an image, or its name and why it is unreadable."""
        try:
            return self.work.decode(number)
        except DECODE_ERRORS as error:
            require_damage(error, self.work.names[number], self.work.where)
            return f"{self.work.names[number]} ({format_reason(error)})"

    def write_shard(self, file: IO[bytes], first: int, images: Sequence[np.ndarray | str]) -> str:
        """Write images to their places and through to the disk; return their SHA-256."""
        digest = hashlib.sha256()
        # written, not memory-mapped: a full disk is then an exception, not a SIGBUS
        places = self.places[first : first + len(images)].tolist()
        for place, image in zip(places, images, strict=True):
            assert isinstance(image, np.ndarray)
            content = image.tobytes()
            digest.update(content)
            file.seek(place * self.bytes)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())  # before the line that says so
        return digest.hexdigest()

    def require_readable(self, unreadable: list[str]) -> None:
        """Raise UserError if images are unreadable."""
        if unreadable:
            raise UserError(
                f"{len(unreadable)} of {self.count} images in {self.work.where} are unreadable: "
                f"{format_names(unreadable)}. Overwrite them with whole ones in place (cp, not mv: "
                "the times of the folders tell whether this is the same set) and type the same "
                "command: all others are decoded."
            )

    def complete(self, digests: Sequence[str]) -> None:
        """Write what `open_prepared` reads."""
        labels = np.empty_like(self.work.labels)
        labels[self.places] = self.work.labels
        np.save(self.folder / "labels.npy", labels)
        facts = json.dumps([self.image_shape, ORDER_SEED, SHARD, *digests], allow_nan=False)
        sample = sample_digest(labels.tolist(), self.folder / "pixels.u8")
        known = {"sha256": hashlib.sha256(facts.encode()).hexdigest(), "sample": sample}
        write_json(self.folder / "complete.json", known)
        log.info("prepared %d images of %s in %s", self.count, self.work.where, self.folder)
