"""ImageNet's path on made-up JPEG files: the preparation, its memory, and batches beside a DataLoader.

Example of usage::

    python scripts/bench_imagenet.py /tmp/made_up --images 50000    # about 0.7 GB and 2.5 GB of cache

Each part runs in a process of its own, whose peak memory is printed: what the kernel counts at most
(ru_maxrss, pages of files among them). Delete the folder afterwards.
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

import numpy as np
from PIL import Image

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


def load_images(root: Path, folder: str) -> object:
    from crgan_cli.data.imagenet import ImageNet

    dataset = ImageNet(
        root=folder, resolution=128, channels=3, classes=CLASSES, shuffle_window=16384
    )
    return dataset, dataset.load("train")


def prepare(root: Path) -> str:
    """Decode all images, or open them if that was done."""
    _, images = load_images(root, str(root))
    return f"{len(images.x)} images"


def draw(root: Path) -> Iterator[int]:
    """Batches of two epochs, as a run draws them, on the CPU."""
    import torch

    from crgan_cli.data.batches import Batches

    dataset, images = load_images(root, str(root))
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


def main() -> None:
    """Parse the command line, and run each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        report(args.only, args.folder)
        return
    if not (args.folder / "train").exists():
        make_files(args.folder, args.images)
    environment = {**os.environ, "CRGAN_CACHE": str(args.folder / "cache")}
    for part in ("prepare", "prepare", "draw", "load_by_torch"):
        command = [sys.executable, __file__, str(args.folder), "--only", part]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
