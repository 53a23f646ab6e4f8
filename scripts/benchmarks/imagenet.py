"""ImageNet's path on made-up JPEG files: preparation, memory, and batches beside a DataLoader.

50,000 images take 0.7 GB, and their cache 2.5 GB. Each part runs in a process of its own, whose
peak memory is printed: what the kernel counts (ru_maxrss), mapped pages of files among it. Delete
the folder afterwards.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from crgan_cli.data import ImageNet, Images

CLASSES, WIDTH, HEIGHT = 1000, 160, 120
BATCH = 256


def make_files(root: Path, images: int) -> None:
    """Write JPEG files of gradients with noise into folders of classes; a tenth for validation."""

    def write(number: int) -> None:
        random = np.random.RandomState(number)
        ends = random.randint(0, 256, (2, 3))
        ramp = np.linspace(0, 1, WIDTH)[None, :, None] * np.linspace(1, 0.5, HEIGHT)[:, None, None]
        noise = random.randint(-20, 21, (HEIGHT, WIDTH, 3))
        pixels = np.clip(ends[0] + (ends[1] - ends[0]) * ramp + noise, 0, 255).astype(np.uint8)
        split = "train" if number < images else "val"
        path = root / split / f"n{number % CLASSES:08d}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, range(images + images // 10)):
            pass


def load_images(root: Path) -> "tuple[ImageNet, Images]":
    """The data set and its training images, which are prepared if they are not."""
    from crgan_cli.data.imagenet import ImageNet

    dataset = ImageNet(
        root=str(root), resolution=128, channels=3, classes=CLASSES, shuffle_window=16384
    )
    return dataset, dataset.load("train")


def prepare(root: Path) -> str:
    """Decode all images, or open them if that was done."""
    _, images = load_images(root)
    return f"{len(images.x)} images"


def draw(root: Path) -> Iterator[int]:
    """Batches of two epochs, as a run draws them, on the CPU."""
    import torch

    from crgan_cli.data.batches import Batches

    dataset, images = load_images(root)
    batches = Batches(
        images,
        batch_size=BATCH,
        seed=1,
        device=torch.device("cpu"),
        flip=True,
        blocks=dataset.block_shuffle,
    )
    for index in range(2 * (len(images.x) // BATCH)):
        batches.inputs(index)
        yield BATCH


def load_by_torch(root: Path) -> Iterator[int]:
    """Batches of half an epoch from torchvision's ImageFolder and torch's DataLoader."""
    import torch
    from torchvision import datasets, transforms

    resize = transforms.Compose(
        [transforms.Resize(128), transforms.CenterCrop(128), transforms.PILToTensor()]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(root / "train"), resize),
        BATCH,
        shuffle=True,
        num_workers=os.cpu_count() or 1,
        drop_last=True,
    )
    for number, (x, _) in enumerate(loader):
        yield len(x)
        if number == len(loader) // 2:
            break


def report(what: str, root: Path) -> None:
    """Run one part and print its time, CPU time and peak memory."""
    began, cpu = time.perf_counter(), os.times()
    if what == "prepare":
        done = prepare(root)
    else:
        count, first = 0, 0.0
        for drawn in (draw if what == "draw" else load_by_torch)(root):
            first = first or time.perf_counter()  # the first batch waits for imports and workers
            count += drawn
        count -= BATCH
        done = f"{count / (time.perf_counter() - first):,.0f} images/s of {count}"
    seconds = time.perf_counter() - began
    now = os.times()
    used = sum(now[:4]) - sum(cpu[:4])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {done}, {seconds:.1f} s, {used:.1f} s of CPU, peak {peak:.0f} MiB", flush=True)


def run_imagenet(args: argparse.Namespace) -> None:
    """Make the files, and run each part in a process of its own."""
    if args.only:
        report(args.only, args.folder)
        return
    if not (args.folder / "train").exists():
        make_files(args.folder, args.images)
    environment = {**os.environ, "CRGAN_CACHE": str(args.folder / "cache")}
    for part in ("prepare", "prepare", "draw", "load_by_torch"):
        command = [sys.executable, sys.argv[0], "imagenet", str(args.folder), "--only", part]
        subprocess.run(command, check=True, env=environment)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `imagenet`."""
    verb = verbs.add_parser("imagenet", help="ImageNet's path on made-up files, in a new FOLDER")
    verb.set_defaults(run=run_imagenet)
    verb.add_argument("folder", type=Path)
    verb.add_argument("--images", type=int, default=50000, help="training images (50,000)")
    verb.add_argument("--only", help=argparse.SUPPRESS)
