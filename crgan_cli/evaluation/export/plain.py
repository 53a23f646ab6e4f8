"""A generator in its plain form: fp32, torch's own layers, channels first, and what it takes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crgan_cli.errors import UserError
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.sampler import eval_mode, protocol_mode, sample_latents
from crgan_cli.evaluation.translate import choose_translation, run_mode
from crgan_cli.gan.labels import Labels
from crgan_cli.system.distributed.world import as_single_process

Compute = Callable[..., Tensor]
"""(inputs) -> images (N, C, H, W), about in [-1, 1]."""


class Input(NamedTuple):
    """One input of an exported generator."""

    name: str
    meaning: str  # shape, type and range
    example: str  # how a reader makes some in numpy, for `n` images
    draw: Callable[[int, int], Tensor]  # (n, seed) -> (n, ...) on the CPU


class PlainGenerator(nn.Module):
    """A network as it is exported: its subclasses name the inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class FromLatents(PlainGenerator):
    """Without labels."""

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z, None)


class FromLatentsAndClasses(PlainGenerator):
    """Conditional."""

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.network(z, y)


class FromImages(PlainGenerator):
    """A translation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class FromImagesAndLabels(PlainGenerator):
    """A translation to any labels."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.network(x, c)


class Plan(NamedTuple):
    """What is exported of a generator."""

    generator: PlainGenerator
    inputs: tuple[Input, ...]
    compute: Compute  # the same images by the original, before `make_plain`
    batch_norm: str  # "running" or "batch", the statistics of each image alone
    remarks: tuple[str, ...] = ()
    to: str | None = None  # which translation, of several


def plan_export(model: LoadedGenerator, to: str | None) -> Plan:
    """Decide what is exported. `to`: which translation, if there are several.

    Raise UserError for a translation that there is not.
    """
    if not model.task.has_latents:
        return plan_translation(model, to)
    if to is not None:
        raise UserError(f"{model.path} draws images from latents. Leave out --translation.")
    prior = model.prior
    kind, scale = prior.kind, "N(0, 1)" if prior.kind == "normal" else "uniform in [-1, 1]"
    example = (
        f"rng.standard_normal((n, {prior.z_dim}), np.float32)"
        if kind == "normal"
        else f"2 * rng.random((n, {prior.z_dim}), np.float32) - 1"
    )

    def draw_z(n: int, seed: int) -> Tensor:
        return sample_latents(prior, n, seed).z

    def draw_y(n: int, seed: int) -> Tensor:
        y = sample_latents(prior, n, seed).y
        assert y is not None, "a prior with classes has labels"
        return y

    inputs = [Input("z", f"(N, {prior.z_dim}) float32, {scale}", example, draw_z)]
    generator: PlainGenerator = FromLatents(model.G)
    if prior.classes:
        meaning = f"(N,) int64, classes from 0 to {prior.classes - 1}"
        inputs.append(Input("y", meaning, f"np.arange(n) % {prior.classes}", draw_y))
        generator = FromLatentsAndClasses(model.G)
    return Plan(generator, tuple(inputs), make_compute(generator), "running")


def plan_translation(model: LoadedGenerator, to: str | None) -> Plan:
    """`plan_export` of a generator that translates: dropout is off, as its noise is in no file."""
    mode = run_mode(model)
    remarks = []
    has_noise = any(isinstance(each, nn.Dropout) and each.p for each in model.G.modules())
    if mode.dropout == "on" and has_noise:
        remarks.append(
            "G's noise (dropout) is off. `crgan translate --dropout off` gives the same images."
        )
    planes = getattr(model.G, "label_planes", None)
    if planes is not None:
        if to is not None:
            raise UserError(
                f"--translation {to}: this generator takes the labels as an input, so its file has "
                "all translations. Leave out --translation."
            )
        network, channels = model.G, int(model.G.channels)  # type: ignore[arg-type]
    else:
        try:
            view = choose_translation(model, to)
        except UserError as error:  # its words are those of `crgan translate`
            raise UserError(str(error).replace("--to", "--translation")) from None
        network = model.G.get_submodule(view.network)
        channels = view.in_channels
    side = int(model.config.architecture.resolution)
    shape = f"{channels}, {side}, {side}"

    def draw_x(n: int, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        return torch.rand(n, channels, side, side, generator=random) * 2 - 1

    def draw_c(n: int, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        return torch.randint(0, 2, (n, int(planes or 0)), generator=random).float()

    example = f"2 * rng.random((n, {shape}), np.float32) - 1"
    inputs = [Input("x", f"(N, {shape}) float32, images in [-1, 1]", example, draw_x)]
    generator: PlainGenerator = FromImages(network)
    if planes is not None:
        labels = Labels.from_settings(model.config.dataset, model.class_names)
        names = ", ".join(name for group in labels.groups for name in group.names)
        more = f", then {len(labels.groups)} that say which group is known"
        meaning = (
            f"(N, {planes}) float32, 0 or 1: the labels that the image is to have. Columns: {names}"
        ) + (more if planes > labels.size else "")
        inputs.append(Input("c", meaning, f"np.zeros((n, {planes}), np.float32)", draw_c))
        generator = FromImagesAndLabels(network)
    compute = make_compute(generator, mode._replace(dropout="off"))
    return Plan(generator, tuple(inputs), compute, mode.batch_norm, tuple(remarks), to)


def make_compute(generator: PlainGenerator, mode: Protocol | None = None) -> Compute:
    """Return what computes images as the commands do.

    `mode`: of a translation, which takes one image at a time.
    """

    def compute(*inputs: Tensor) -> Tensor:
        if mode is None:
            with eval_mode(generator), as_single_process():
                return generator(*inputs).float()
        with protocol_mode(generator, mode), as_single_process():
            rows = zip(*(each.split(1) for each in inputs), strict=True)
            return torch.cat([generator(*row).float() for row in rows])

    return compute


def make_plain(generator: PlainGenerator, batch_norm: str) -> None:
    """Change a generator to its plain form, in place.

    Spectral norms are divided out: a weight is W / sigma(W), as evaluation mode computes it each
    time. Batch norm by the statistics of one image is instance norm. The memory format is channels
    first; the rest, such as fused convolutions, is plain in evaluation mode anyway.
    """
    for module in list(generator.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    if batch_norm == "batch":
        for parent in list(generator.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, to_instance_norm(child))
    generator.float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    generator.eval().requires_grad_(False)


def to_instance_norm(norm: nn.BatchNorm2d) -> nn.InstanceNorm2d:
    """What batch norm in training mode is for a batch of one image."""
    same = nn.InstanceNorm2d(norm.num_features, norm.eps, affine=norm.affine)
    if norm.affine:
        same.weight, same.bias = norm.weight, norm.bias
    return same
