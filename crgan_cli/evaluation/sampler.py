"""Draw images from a generator without disturbing its training, by the rules of a protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from typing import Protocol as TypingProtocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm

from crgan_cli.data.images import to_uint8
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.features import require_finite_images
from crgan_cli.evaluation.metrics.perceptual_path import STEP
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.system.distributed.world import as_single_process

MARGIN = 2
"""Black pixels between the images of a grid, and around it."""

STANDING_BATCHES = 100
"""Batches whose mean the standing statistics are: 5,000 images at 50 per batch (our choice)."""


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Use evaluation mode without gradients. Modes and random states are restored afterwards."""
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for layer, training in modes:
                layer.training = training


class Latents(NamedTuple):
    """The inputs of a generator, drawn on the CPU: a seed means the same on any device."""

    z: Tensor  # (N, z_dim)
    y: Tensor | None  # (N,) class ids, None without classes


def sample_latents(
    prior: Prior,
    n: int,
    seed: int,
    *,
    labels: Tensor | None = None,
    truncation: float | None = None,
) -> Latents:
    """Sample n latents. `labels`, (n,), are random if None; `truncation` as in `Prior.truncate`."""
    generator = torch.Generator().manual_seed(seed)
    cpu = torch.device("cpu")
    with as_single_process():  # every process has all latents
        z, y = prior.sample_z(n, cpu, generator), prior.sample_y(n, cpu, generator)
    if truncation is not None:
        z = prior.truncate(z, truncation)
    return Latents(z, y if labels is None or not prior.classes else labels)


def interpolate(ends: Latents, steps: int, kind: str) -> Latents:
    """Return paths from each even latent to the odd one after it, in `steps` images of one label.

    Along the great circle for a normal prior, whose latents lie near a sphere (White 2016,
    arXiv:1609.04468); straight for a uniform one.
    """
    start, end = ends.z[0::2, None], ends.z[1::2, None]  # (paths, 1, z_dim)
    z = move(start, end, torch.linspace(0, 1, steps)[None, :, None], kind)
    return Latents(
        z.flatten(0, 1), None if ends.y is None else ends.y[0::2].repeat_interleave(steps)
    )


def interpolate_loops(stops: Latents, loops: int, steps: int, kind: str) -> Latents:
    """Return the frames of closed paths, `steps` from one latent to the next, as `move` goes.

    `stops` holds the latents of one loop after those of another; the last leads to the first, so
    that a movie has no jump. All loops of the first frame come first, then those of the next.
    """
    start = stops.z.unflatten(0, (loops, -1))[:, :, None]  # (loops, stops, 1, z_dim)
    t = torch.arange(steps)[:, None] / steps  # without the end, which is the next start
    z = move(start, start.roll(-1, 1), t, kind).flatten(1, 2)  # (loops, frames, z_dim)
    y = None if stops.y is None else stops.y.unflatten(0, (loops, -1))[:, 0].repeat(z.shape[1])
    return Latents(z.transpose(0, 1).flatten(0, 1), y)


def move(start: Tensor, end: Tensor, t: Tensor, kind: str) -> Tensor:
    """The latents (..., z_dim) at the share t, (..., 1), of the way from start to end.

    Along the great circle for a normal prior, straight for a uniform one.
    """
    if kind != "normal":
        return (1 - t) * start + t * end
    cosine = torch.cosine_similarity(start, end, dim=-1)[..., None].clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.acos()
    return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()


class Sampler:
    """Draws the images of fixed latents, in batches of any size."""

    def __init__(self, latents: Latents, device: torch.device) -> None:
        self.latents = latents
        self.device = device

    def draw(self, G: nn.Module, start: int, n: int) -> Tensor:
        """Return images start to start + n, (n, C, H, W) in [-1, 1], fp32.

        Raises RunFailed if they are not finite.
        """
        z, y = (None if part is None else part[start : start + n] for part in self.latents)
        assert z is not None
        with as_single_process():  # each process draws batches of its own
            images = G(z.to(self.device), None if y is None else y.to(self.device)).float()
        require_finite_images(images)
        return images


class ImageSource(TypingProtocol):
    """What draws the images start to start + n of a generator, always the same."""

    def draw(self, G: nn.Module, start: int, n: int) -> Tensor: ...


class ProtocolSampler:
    """Draws the images that a protocol scores, with G's layers in the protocol's modes."""

    def __init__(
        self,
        protocol: Protocol,
        source: ImageSource,
        *,
        y: Tensor | None = None,
        standing: ImageSource | None = None,
        steps: tuple[ImageSource, ...] = (),
    ) -> None:
        """`y`: (N,) class ids of the images. `standing`: the images for standing statistics.
        `steps`: the images before and after a small step of the latents, if there are latents.
        """
        self.protocol = protocol
        self.source = source
        self.y = y
        self.standing = standing
        self.steps = steps

    @contextmanager
    def images(self, G: nn.Module) -> Iterator[Fakes]:
        """Provide G's images inside the block; G is restored afterwards."""
        with protocol_mode(G, self.protocol, self.standing):
            steps = tuple(partial(each.draw, G) for each in self.steps)
            yield Fakes(partial(self.source.draw, G), self.y, steps)


@contextmanager
def protocol_mode(
    G: nn.Module, protocol: Protocol, standing: ImageSource | None = None
) -> Iterator[None]:
    """Set G's batch norm and dropout to a protocol's modes; G is restored afterwards.

    Batch norm `running`: the running means of training. `batch`: the statistics of each drawn
    batch. `standing`: the mean over the new batches of `standing` (Brock et al. 2019,
    arXiv:1809.11096, C.1).
    """
    with eval_mode(G), batch_norm_mode(G, protocol, standing):
        if protocol.dropout == "on":
            for layer in G.modules():
                if isinstance(layer, nn.modules.dropout._DropoutNd):
                    layer.train()
        yield


@contextmanager
def batch_norm_mode(
    G: nn.Module, protocol: Protocol, standing: ImageSource | None
) -> Iterator[None]:
    """Do the part of `protocol_mode` for batch norm. `eval_mode` restores the modes."""
    layers = [layer for layer in G.modules() if isinstance(layer, _BatchNorm)]
    if protocol.batch_norm == "running" or not layers:
        yield
        return
    saved = [
        (layer, layer.momentum, [each.clone() for each in layer.buffers()]) for layer in layers
    ]
    try:
        for layer in layers:
            layer.train()
        if standing is not None:
            compute_standing_statistics(G, layers, standing, protocol.batch_size)
        yield
    finally:
        for layer, momentum, buffers in saved:
            layer.momentum = momentum
            for buffer, before in zip(layer.buffers(), buffers, strict=True):
                buffer.copy_(before)


def compute_standing_statistics(
    G: nn.Module, layers: list[_BatchNorm], source: ImageSource, batch_size: int
) -> None:
    """Set the running statistics to the plain mean over new batches."""
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # type: ignore[assignment]  # torch: the plain mean of all batches
    for start in range(0, STANDING_BATCHES * batch_size, batch_size):
        source.draw(G, start, batch_size)
    for layer in layers:
        layer.eval()


class EvalSampler(ProtocolSampler):
    """Draws the images that a protocol scores, always from the same latents of one prior."""

    def __init__(self, protocol: Protocol, prior: Prior, seed: int, device: torch.device) -> None:
        def sample(count: int, seed: int) -> Latents:
            return sample_latents(prior, count, seed, truncation=protocol.truncation)

        latents = sample(protocol.num_samples * protocol.repeats, seed)
        standing = None
        if protocol.batch_norm == "standing":
            others = sample(STANDING_BATCHES * protocol.batch_size, seed + 1)
            standing = Sampler(others, device)
        super().__init__(
            protocol,
            Sampler(latents, device),
            y=latents.y,
            standing=standing,
            steps=make_steps(latents, sample(len(latents.z), seed + 2).z, prior.kind, seed, device),
        )


def make_steps(
    latents: Latents, others: Tensor, kind: str, seed: int, device: torch.device
) -> tuple[Sampler, Sampler]:
    """Return what draws the images at a random place on the way to other latents, and `STEP` on."""
    t = torch.rand(len(others), 1, generator=torch.Generator().manual_seed(seed))
    before, after = (
        latents._replace(z=move(latents.z, others, place, kind)) for place in (t, t + STEP)
    )
    return Sampler(before, device), Sampler(after, device)


def make_grid(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> one uint8 picture (3, H', W'), `columns` images wide."""
    return tile(to_uint8(images).cpu(), columns)


def tile(images: Tensor, columns: int) -> Tensor:
    """(N, 1 or 3, H, W) uint8 -> one picture (3, H', W'), `columns` images wide.

    torchvision's make_grid would do, but importing torchvision takes longer than torch itself.
    """
    framed = pad(images.expand(-1, 3, -1, -1), (0, MARGIN, 0, MARGIN))
    rows = -(-len(framed) // columns)
    framed = torch.cat([framed, framed.new_zeros(rows * columns - len(framed), *framed.shape[1:])])
    tiled = framed.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return pad(tiled.flatten(3).flatten(1, 2), (MARGIN, 0, MARGIN, 0))


def grid_columns(n: int) -> int:
    """Return the number of columns for which a grid of n images is about as wide as high."""
    return max(round(n**0.5), 1)


def class_per_row(n: int, columns: int, classes: int) -> Tensor | None:
    """Return class ids, (n,), one class per row of a grid. None without classes."""
    return torch.arange(n) // columns % classes if classes else None
