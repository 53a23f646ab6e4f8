"""A training step in the structure that other programs for these papers have, to compare with.

It plays the same game with the same networks, weights and terms as crgan, so that a ratio of times
is one of structure alone. Where the time goes in such a step was read from the public programs
(StudioGAN, mimicry, BigGAN-PyTorch); this is their structure in words and code of our own:

- D is called for each view: real, fake, T(real), T(fake), G(z'), one after the other;
- spectral norm makes a power iteration at every call, layer by layer;
- D's weights get gradients in G's turn too, and nobody uses them;
- T flips by a boolean mask and shifts by an index, both from the CPU's random numbers;
- penalties draw their points on the CPU and are differentiated twice by autograd;
- Adam and the average of G go from parameter to parameter;
- three numbers are fetched from the device in each of D's turns and one in G's;
- images are fp32 in NCHW, and come from a DataLoader that transforms one at a time.

On CUDA convolutions are in TF32, as PyTorch has it. Not in it: the resizing through PIL, the fp16
with a gradient scaler, and the logging of each of them.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.types import Batch, Terms, Views
from crgan_cli.networks.fast.spectral import SpectralNorm


class Settings(NamedTuple):
    """What the step is told."""

    regularizer: str
    weights: Mapping[str, float]  # the regularizer's own: lambda_cr, ...
    adam: Mapping[str, float]  # lr_g, lr_d, beta1, beta2, eps
    n_dis: int
    batch_size: int
    shift: int
    decay: float  # of the average of G


Sets = dict[str, Images]
"""Name of a view -> its real images."""


# --- data ----------------------------------------------------------------------------------------


class OneByOne(TorchDataset[tuple[Tensor, Tensor]]):
    """Images that are transformed when they are asked for."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.images.x[index].float().div(255)
        mean = std = torch.tensor((0.5,) * len(x)).view(-1, 1, 1)
        return (x - mean) / std, self.images.y[index]


def load(
    dataset: TorchDataset[tuple[Tensor, Tensor]], batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of both tensors, on the device."""
    cuda = device.type == "cuda"
    workers = min(4, os.cpu_count() or 1) if cuda else 0  # a CPU trains with the same cores
    loader = DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=cuda,
    )
    while True:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def batches(images: Images, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Endless, on the device."""
    return (Batch(x, y) for x, y in load(OneByOne(images), batch_size, device))


# --- T -------------------------------------------------------------------------------------------


def flip_and_shift(x: Tensor, shift: int) -> Tensor:
    """Each image mirrored with probability 1/2, and moved by up to `shift` pixels each way."""
    n, _, h, w = x.shape
    x = x.clone()
    mask = (torch.FloatTensor(n, 1, 1, 1).uniform_() < 0.5).repeat(1, *x.shape[1:]).to(x.device)
    x[mask] = x.flip(3)[mask]
    dy = torch.randint(2 * shift + 1, (n, 1, 1)).to(x.device)
    dx = torch.randint(2 * shift + 1, (n, 1, 1)).to(x.device)
    image, row, column = torch.meshgrid(
        *(torch.arange(size, device=x.device) for size in (n, h, w)), indexing="ij"
    )
    padded = F.pad(x, (shift,) * 4, mode="reflect").permute(0, 2, 3, 1)
    return padded[image, row + dy, column + dx].permute(0, 3, 1, 2)


# --- spectral norm, the average, the gradient ----------------------------------------------------


def normalising_at_each_call(network: nn.Module) -> nn.Module:
    """A copy of a network whose spectral norm is PyTorch's own, in the same state."""
    network = deepcopy(network)
    for chain in network.modules():
        if isinstance(chain, parametrize.ParametrizationList):
            (ours,) = chain
            assert isinstance(ours, SpectralNorm)
            # put in its place: removing one takes the property from the copied layer's class too
            chain[0] = pytorchs(ours, chain.original)
    return network


def pytorchs(ours: SpectralNorm, weight: Tensor) -> nn.Module:
    """PyTorch's spectral norm of a weight, with the vectors that ours has come to."""
    holder = nn.Module()
    holder.weight = nn.Parameter(weight.detach().clone())
    parametrizations.spectral_norm(holder, eps=1e-12, dim=ours.rows)
    theirs = holder.get_submodule("parametrizations.weight.0")
    with torch.no_grad():
        W = weight.movedim(ours.rows, 0).flatten(1)
        theirs._v.copy_(F.normalize(W.T @ ours.u, dim=0))  # type: ignore[operator]
        theirs._u.copy_(F.normalize(W @ theirs._v, dim=0))  # type: ignore[operator]
    return theirs


@torch.no_grad()
def follow(average: nn.Module, G: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * G, parameter by parameter."""
    for mine, new in zip(average.parameters(), G.parameters(), strict=True):
        mine.mul_(decay).add_(new, alpha=1 - decay)
    for buffer, now in zip(average.buffers(), G.buffers(), strict=True):
        buffer.copy_(now)


def slope(D: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, y: Tensor | None) -> Tensor:
    """grad_x D(x), to be differentiated again."""
    x = x.detach().clone().requires_grad_()
    logits = D(x, y)
    (gradient,) = torch.autograd.grad(
        logits, x, torch.ones_like(logits), create_graph=True, retain_graph=True
    )
    return gradient


def distance_from_norm(gradient: Tensor, target: float = 1.0) -> Tensor:
    """Of the norms of gradients, squared, in units of the norm that they should have."""
    return (gradient.flatten(1).norm(2, dim=1) - target).square().mean() / target**2


# --- the terms -----------------------------------------------------------------------------------


class Scored(NamedTuple):
    """What D's turn has so far."""

    D: Callable[[Tensor, Tensor | None], Tensor]
    T: Callable[[Tensor], Tensor]
    weights: Mapping[str, float]
    real: Batch
    fakes: Views
    on_real: Tensor
    on_fake: Tensor


def cr(seen: Scored) -> Terms:
    on_t = seen.D(seen.T(seen.real.x), seen.real.y)
    return {"cr/real": seen.weights["lambda_cr"] * F.mse_loss(seen.on_real, on_t)}


def bcr(seen: Scored) -> Terms:
    fake = seen.fakes["fake"]
    on_real_t = seen.D(seen.T(seen.real.x), seen.real.y)
    on_fake_t = seen.D(seen.T(fake.x), fake.y)
    return {
        "bcr/real": seen.weights["lambda_real"] * F.mse_loss(seen.on_real, on_real_t),
        "bcr/fake": seen.weights["lambda_fake"] * F.mse_loss(seen.on_fake, on_fake_t),
    }


def zcr(seen: Scored) -> Terms:
    on_near = seen.D(*seen.fakes["near"])
    return {"zcr/dis": seen.weights["lambda_dis"] * F.mse_loss(seen.on_fake, on_near)}


def gp(seen: Scored) -> Terms:
    x = seen.real.x
    alpha = torch.rand(len(x), 1, 1, 1).to(x.device)
    between = alpha * x + (1 - alpha) * seen.fakes["fake"].x
    gradient = slope(seen.D, between, seen.real.y)
    penalty = distance_from_norm(gradient, seen.weights["target"])
    return {"gp": seen.weights["lambda_gp"] * penalty}


def drift(seen: Scored) -> Terms:
    return {"drift": seen.weights["epsilon_drift"] * (seen.on_real**2).mean()}


def dragan(seen: Scored) -> Terms:
    x = seen.real.x
    alpha = torch.rand(len(x), 1, 1, 1).to(x.device)
    beta = torch.rand(x.shape).to(x.device)
    near = x + alpha * (0.5 * x.std(correction=0) * beta)
    penalty = distance_from_norm(slope(seen.D, near, seen.real.y))
    return {"dragan": seen.weights["lambda_dr"] * penalty}


def jsr(seen: Scored) -> Terms:
    fake, half = seen.fakes["fake"], 0.5 * seen.weights["gamma"]
    of_real = slope(seen.D, *seen.real).flatten(1).norm(2, dim=1)
    of_fake = slope(seen.D, *fake).flatten(1).norm(2, dim=1)
    on_real = (1 - torch.sigmoid(seen.on_real)) ** 2 * of_real**2
    on_fake = torch.sigmoid(seen.on_fake) ** 2 * of_fake**2
    return {"jsr/real": half * on_real.mean(), "jsr/fake": half * on_fake.mean()}


Paid = tuple[Callable[[Scored], Terms], ...]

TERMS: dict[str, Paid] = {
    "none": (),
    "gp": (gp,),
    "drift": (drift,),
    "dragan": (dragan,),
    "jsr": (jsr,),
    "cr": (cr,),
    "bcr": (bcr,),
    "zcr": (zcr,),
    "icr": (bcr, zcr),
}
"""Regularizer -> what D pays for it."""


def find_terms(regularizer: str) -> Paid:
    """What D pays, for "gp" or a sum such as "cr+gp". Raises UserError if one is not in TERMS."""
    for name in regularizer.split("+"):
        if name not in TERMS:
            raise UserError(
                f"--reg {name}: there is no step of other programs for it to "
                f"compare with. Choose among {', '.join(TERMS)}, or give --against none."
            )
    return tuple(term for name in regularizer.split("+") for term in TERMS[name])


# --- the step ------------------------------------------------------------------------------------


def build_adams(
    players: Mapping[str, nn.Module], settings: Settings, *, foreach: bool | None
) -> dict[str, torch.optim.Adam]:
    """One Adam a player, never fused. `foreach`: None is PyTorch's choice."""
    adam = settings.adam
    return {
        who: torch.optim.Adam(
            network.parameters(),
            lr=adam[f"lr_{who}"],
            betas=(adam["beta1"], adam["beta2"]),
            eps=adam["eps"],
            foreach=foreach,
            fused=False,
        )
        for who, network in players.items()
    }


class PeerStep:
    """n_dis turns of D and one of G. The networks are copied, and stay as they were."""

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        prior: Prior,
        images: Images,
        settings: Settings,
        device: torch.device,
    ) -> None:
        self.terms = find_terms(settings.regularizer)
        G, D = (normalising_at_each_call(each).to(device) for each in networks)
        plain = torch.contiguous_format
        self.G: nn.Module = G.to(memory_format=plain).requires_grad_()  # type: ignore[call-overload]
        self.D: nn.Module = D.to(memory_format=plain).requires_grad_()  # type: ignore[call-overload]
        self.average = deepcopy(self.G).requires_grad_(False)
        self.prior, self.settings, self.device = prior, settings, device
        self.batches = batches(images, settings.batch_size, device)
        self.T: Callable[[Tensor], Tensor] = lambda x: flip_and_shift(x, settings.shift)
        self.zcr = zcr in self.terms
        self.optimizers = build_adams({"g": self.G, "d": self.D}, settings, foreach=False)
        self.read: dict[str, float] = {}

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            for _ in range(self.settings.n_dis):
                self.d_turn()
            self.g_turn()
            follow(self.average, self.G, self.settings.decay)

    def d_turn(self) -> None:
        real = next(self.batches)
        real = real if self.prior.classes else real._replace(y=None)
        self.optimizers["d"].zero_grad()
        with torch.no_grad():
            fakes = self.imagine(len(real.x))
        terms, on_real, on_fake = self.d_terms(real, fakes)
        loss = sum(terms.values(), torch.zeros((), device=self.device))
        loss.backward()
        self.optimizers["d"].step()
        self.read |= {
            "d": loss.item(),
            "D(x)": torch.sigmoid(on_real).mean().item(),
            "D(G(z))": torch.sigmoid(on_fake).mean().item(),
        }

    def g_turn(self) -> None:
        self.optimizers["g"].zero_grad()
        terms = self.g_terms(self.imagine(self.settings.batch_size))
        loss = sum(terms.values(), torch.zeros((), device=self.device))
        loss.backward()
        self.optimizers["g"].step()
        self.read["g"] = loss.item()

    def imagine(self, n: int) -> Views:
        """G's images of new codes, and of codes near them for zCR."""
        z, y = self.prior.sample_z(n, self.device), self.prior.sample_y(n, self.device)
        codes = {"fake": z}
        if self.zcr:
            codes["near"] = z + self.settings.weights["sigma"] * torch.randn_like(z)
        return {role: Batch(self.G(code, y), y) for role, code in codes.items()}

    def d_terms(self, real: Batch, fakes: Views) -> tuple[Terms, Tensor, Tensor]:
        """What D pays, and its logits of real and generated images."""
        on_real, on_fake = self.D(*real), self.D(*fakes["fake"])
        terms = {"adversarial/d": self.d_loss(on_real, on_fake)}
        seen = Scored(self.D, self.T, self.settings.weights, real, fakes, on_real, on_fake)
        for term in self.terms:
            terms |= term(seen)
        return terms, on_real, on_fake

    def g_terms(self, fakes: Views) -> Terms:
        """What G pays."""
        terms = {"adversarial/g": self.g_loss(self.D(*fakes["fake"]))}
        if self.zcr:
            apart = F.mse_loss(fakes["fake"].x, fakes["near"].x)
            terms["zcr/gen"] = -self.settings.weights["lambda_gen"] * apart
        return terms

    def d_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    def g_loss(self, on_fake: Tensor) -> Tensor:
        return F.softplus(-on_fake).mean()
