"""The training step of other programs for pairs of images, and what of crgan's it is compared with.

Their structure was read from the authors' PyTorch port of pix2pix; the code here is our own:

- a pair is two pictures: each is cropped, mirrored and converted for itself, with Pillow, and
  brought to the device for itself, in fp32 and NCHW;
- G runs once. D plays first, G second; D sees G's images once more after its update;
- D is called for each view: the generated pair, the real one, and T of either;
- D's weights are frozen in G's turn; Adam is PyTorch's default; no average of G, no dropout of
  our own.

Not in it: reading files and resizing. The images are in memory on both sides.
"""

from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from crgan_cli.data.images import Images
from crgan_cli.gan.tasks.base import hold
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.types import Batch, PlayerLoss, Terms, Views, split_pair
from crgan_cli.networks.layers import at_least_fp32

from .equality import compare, make_repeatable
from .peers import Scored, Sets, Settings, build_adams, find_terms, flip_and_shift, load
from .pictures import Cut, other_network, picture

CHECKED = 8  # pairs in the batch that both sides are compared on

DEFAULTS = (
    "task=pix2pix",
    "dataset=pairs",
    "dataset.root=.",
    "dataset.resolution=128",
    "dataset.load_size=143",
    "architecture.width=0.25",
    "batch_size=4",
    "ema.decay=null",
)
"""Settings for an architecture that translates, unless others are given."""


class GTwice(Pix2Pix):
    """pix2pix in two independent turns, D first: G runs in each of them."""

    turns = ("d", "g")

    def players_run(self, who: str) -> tuple[str, ...]:
        return self.turns

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        if who == "d":
            x, _ = split_pair(reals["real"].x, self.channels_in)
            with torch.no_grad():
                self.fake = hold(self.fake, at_least_fp32(self.G(x)))
        return super().player_loss(who, reals)


def run_g_twice(task: Pix2Pix, conditional: bool) -> GTwice:
    """A task of the same players and terms."""
    one = {"n_dis": 1, "lambda_l1": task.lambda_l1, "conditional": conditional}
    return GTwice(task.G, task.adversary, task.channels_in, **one)


# --- data ----------------------------------------------------------------------------------------


class Pictures(TorchDataset[tuple[Tensor, Tensor]]):
    """Pairs of pictures that are cropped and mirrored when they are asked for."""

    def __init__(self, images: Images, channels_in: int, side: int, flip: bool) -> None:
        self.pairs = [
            tuple(picture(half[0]) for half in split_pair(pair[None], channels_in))
            for pair in images.x
        ]
        self.side, self.flip = side, flip

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        a, b = self.pairs[index]
        cut = Cut.draw(a, self.side, self.flip)
        return cut.convert(a), cut.convert(b)


# --- the step ------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Inputs and targets, apart."""

    a: Tensor
    b: Tensor


class PairedPeerStep:
    """A turn of D and one of G. The networks are copied, and stay as they were."""

    def __init__(
        self,
        task: Pix2Pix,
        sets: Sets,
        settings: Settings,
        config: DictConfig,
        device: torch.device,
    ) -> None:
        self.terms = find_terms(settings.regularizer)
        self.G = other_network(task.G, device)
        self.D = other_network(task.adversary.D, device)
        self.settings = settings
        self.lambda_l1: float = config.task.lambda_l1
        self.conditional: bool = config.task.conditional
        part = config.dataset
        pictures = Pictures(sets["real"], task.channels_in, part.resolution, part.flip)
        self.batches = load(pictures, settings.batch_size, device)
        self.T = lambda x: flip_and_shift(x, settings.shift)
        self.optimizers = build_adams({"g": self.G, "d": self.D}, settings, foreach=None)

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step(Pair(*next(self.batches)))

    def step(self, real: Pair) -> None:
        """One turn of each player."""
        fake = self.G(real.a)
        self.D.requires_grad_(True)
        self.optimizers["d"].zero_grad()
        sum(self.d_terms(real, fake).values(), torch.zeros(())).backward()
        self.optimizers["d"].step()
        self.D.requires_grad_(False)
        self.optimizers["g"].zero_grad()
        sum(self.g_terms(real, fake).values(), torch.zeros(())).backward()
        self.optimizers["g"].step()

    def show(self, a: Tensor, b: Tensor) -> Tensor:
        """What D sees."""
        return torch.cat((a, b), 1) if self.conditional else b

    def d_terms(self, real: Pair, fake: Tensor) -> Terms:
        """What D pays."""
        shown, fakes = Batch(self.show(*real)), Batch(self.show(real.a, fake).detach())
        on_fake, on_real = self.D(*fakes), self.D(*shown)
        terms = {"adversarial/d": F.softplus(-on_real).mean() + F.softplus(on_fake).mean()}
        weights = self.settings.weights
        seen = Scored(self.D, self.T, weights, shown, {"fake": fakes}, on_real, on_fake)
        for term in self.terms:
            terms |= term(seen)
        return terms

    def g_terms(self, real: Pair, fake: Tensor) -> Terms:
        """What G pays."""
        logits = self.D(self.show(real.a, fake), None)
        l1 = self.lambda_l1 * F.l1_loss(fake, real.b)
        return {"adversarial/g": F.softplus(-logits).mean(), "l1": l1}


def require_equal(task: Pix2Pix, peer: PairedPeerStep, sets: Sets, config: DictConfig) -> None:
    """See `game.require_equal_losses`. In training mode: batch norm takes a batch's statistics."""
    for network in (task.G, task.adversary.D, peer.G, peer.D):
        make_repeatable(network)
    side = config.dataset.resolution
    x = sets["real"].x[:CHECKED, :, :side, :side].float() / 127.5 - 1
    real = Pair(*split_pair(x, task.channels_in))
    fake = peer.G(real.a)
    g_terms = task.player_loss("g", {"real": Batch(x)}).terms
    compare("g", g_terms, task.G, peer.g_terms(real, fake), peer.G)
    d_terms = task.player_loss("d", {"real": Batch(x)}).terms
    compare("d", d_terms, task.adversary.D, peer.d_terms(real, fake), peer.D)
