"""A small classifier of a data set's images, by classes or attributes, trained once and cached.

It is ours, so its accuracy is no published number. How good it is stands beside what it finds: its
accuracy on real images that it has not seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from crgan_cli.data.images import Images, fingerprint, to_float
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.evaluation.metrics.small_network import BATCH as BATCH_SCORED
from crgan_cli.evaluation.metrics.small_network import SmallNetwork, compute_outputs
from crgan_cli.gan.labels import Labels
from crgan_cli.system import cache
from crgan_cli.system.distributed.objects import broadcast_from_main

VERSION = 1  # of the network and its training; a new number trains new ones
SEED = 0
LARGEST_SIDE = 32  # pixels; larger images are shrunk to it
STEPS = 400
BATCH = 128
LEARNING_RATE = 4e-3  # of Adam; falls linearly to 0
HELD_OUT = 0.1  # share of the images that are not trained on, at most MOST_HELD_OUT
MOST_HELD_OUT = 5000


class Classifier(NamedTuple):
    """Tells the labels of an image."""

    network: SmallNetwork
    accuracy: float  # share of held-out real images whose known labels are all told
    images_sha256: str  # of the images that it was made with
    labels: Labels | None = None  # the columns of the outputs; None: class ids

    def predict(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) uint8, or float in [0, 255] -> labels as the data set stores them, on the
        same device: (N,) class ids, or (N, planes)."""
        x = shrink(pixels.cpu().float().div(127.5).sub(1))
        outputs = compute_outputs(self.network, x)
        found = self.labels.decide(outputs) if self.labels else outputs.argmax(1)
        return found.to(pixels.device)


def load_or_train_classifier(
    images: Images,
    progress: Progress | None = None,
    stop: Stop | None = None,
    *,
    labels: Labels | None = None,
) -> Classifier:
    """Return a classifier of these labelled images: from the cache, or trained and then cached.

    `labels` tell what the columns of (N, planes) labels are; (N,) class ids need none.

    Equal images give an equal classifier: it is trained on one CPU thread. With several processes,
    the main one trains. torch's random state is restored.
    """
    if images.y.ndim == 1:
        labels = None
    sha256 = fingerprint(images)
    network = build_network(images, labels)
    record = cache.cache_key(
        {
            "version": VERSION,
            "images": sha256,
            "settings": [SEED, LARGEST_SIDE, STEPS, BATCH, LEARNING_RATE, HELD_OUT, MOST_HELD_OUT],
            **({"labels": [list(group) for group in labels.groups]} if labels else {}),
        }
    )
    path = cache.cache_path("classifiers", "classifier", record)

    def find() -> dict:
        cached = cache.load_cached(path)
        if cached is None:
            accuracy = train_classifier(network, images, labels, progress, stop)
            cached = {"weights": network.state_dict(), "accuracy": accuracy}
            cache.save_cached(path, cached)
        return cached

    found = broadcast_from_main(find)
    network.load_state_dict(found["weights"])
    return Classifier(network.requires_grad_(False), found["accuracy"], sha256, labels)


def build_network(images: Images, labels: Labels | None) -> SmallNetwork:
    """Build an untrained network for the shape and the labels of these images."""
    _, channels, height, width = images.x.shape
    outputs = labels.size if labels else int(images.y.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return SmallNetwork(channels, min(height, width, LARGEST_SIDE), outputs)


def split_rows(count: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Return the indices of the images that are held out and of those that are trained on, and the
    generator of what is random in training."""
    order = torch.Generator().manual_seed(SEED)
    rows = torch.randperm(count, generator=order)
    held_out, seen = rows.tensor_split([min(round(HELD_OUT * count), MOST_HELD_OUT)])
    return held_out, seen, order


def train_classifier(
    network: SmallNetwork,
    images: Images,
    labels: Labels | None,
    progress: Progress | None,
    stop: Stop | None,
) -> float:
    """Train the network. Return its accuracy on held-out images."""
    held_out, seen, order = split_rows(len(images.x))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
    with single_thread(), torch.enable_grad():
        for step in range(STEPS):
            if stop:
                stop()
            chosen = seen[torch.randint(len(seen), (BATCH,), generator=order)]
            x = shrink(to_float(images.x[chosen]))
            y = images.y[chosen]
            outputs = network(x)
            loss = labels.loss(outputs, labels.encode(y)) if labels else cross_entropy(outputs, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            falling.step()
            if progress:
                progress(step + 1, STEPS)
        outputs = torch.cat(
            [
                compute_outputs(network, shrink(to_float(images.x[part])))
                for part in held_out.split(BATCH_SCORED)
            ]
        )
    y = images.y[held_out]
    if labels is None:
        return float((outputs.argmax(1) == y).double().mean())
    found = torch.cat([labels.decide(outputs)[:, : labels.size], y[:, labels.size :]], 1)
    return float((labels.encode(found) == labels.encode(y)).all(1).double().mean())


def shrink(x: Tensor) -> Tensor:
    """Means of pixels, so that the shorter side is at most LARGEST_SIDE."""
    side = min(x.shape[2:])
    if side <= LARGEST_SIDE:
        return x
    height, width = (round(size * LARGEST_SIDE / side) for size in x.shape[2:])
    return adaptive_avg_pool2d(x, (height, width))


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one CPU thread, since another number rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
