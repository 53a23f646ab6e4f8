"""The training step of other programs for two sets of images without pairs.

Its structure was read from the authors' PyTorch port of CycleGAN; the code here is our own:

- two pictures a step and image of a batch, each cropped, mirrored and converted for itself with
  Pillow; that of b is drawn at random;
- six G calls: both translations, both ways back, and G's answer to what is in its domain already;
- D's weights are frozen in G's turn, which comes first and calls each D once;
- the pools swap image by image, by chances that are drawn on the host;
- D's are called for each view: the real images, those of the pool, and T of either; each D has a
  backward pass of its own;
- Adam is PyTorch's default, one for both generators and one for both discriminators; fp32, NCHW;
  no average of G.
"""

import random
from collections.abc import Mapping

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from crgan_cli.gan.tasks.cyclegan import CycleGAN, name_terms
from crgan_cli.gan.types import Batch, Terms

from .equality import compare, make_repeatable
from .peers import Scored, Sets, Settings, build_adams, find_terms, flip_and_shift, load
from .pictures import Cut, other_network, picture

DEFAULTS = (
    "task=cyclegan",
    "dataset=domains",
    "dataset.root=.",
    "dataset.resolution=64",
    "dataset.load_size=72",
    "loss=least_squares",
    "architecture.width=0.25",
    "batch_size=4",
    "ema.decay=null",
)
"""Settings for an architecture that translates without pairs, unless others are given."""

Sides = Mapping[str, Tensor]
"""Images of a and of b."""

TO = {"a": "ba", "b": "ab"}
"""A domain -> the generator of its images."""


class Pictures(TorchDataset[tuple[Tensor, Tensor]]):
    """A picture of a, and any of b, cropped and mirrored apart when they are asked for."""

    def __init__(self, sets: Sets, side: int, flip: bool) -> None:
        self.a, self.b = ([picture(x) for x in sets[name].x] for name in "ab")
        self.side, self.flip = side, flip

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        chosen = self.a[index % len(self.a)], self.b[random.randrange(len(self.b))]
        a, b = (Cut.draw(each, self.side, self.flip).convert(each) for each in chosen)
        return a, b


class Pool:
    """Earlier images, exchanged one by one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """What D is shown."""
        if self.size == 0:
            return images
        shown = []
        for image in images.detach():
            if len(self.kept) < self.size:
                self.kept.append(image.clone())
                shown.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                shown.append(self.kept[place])
                self.kept[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)


class CyclePeerStep:
    """A turn of both generators and one of both discriminators. The networks are copied."""

    def __init__(
        self,
        task: CycleGAN,
        sets: Sets,
        settings: Settings,
        config: DictConfig,
        device: torch.device,
    ) -> None:
        def copies(player: nn.Module) -> nn.ModuleDict:
            assert isinstance(player, nn.ModuleDict)
            return nn.ModuleDict({k: other_network(each, device) for k, each in player.items()})

        self.terms = find_terms(settings.regularizer)
        self.G, self.D = copies(task.player("g")), copies(task.player("d"))
        self.settings = settings
        self.cycle = {"a": config.task.lambda_a, "b": config.task.lambda_b}
        self.identity: float = config.task.lambda_identity
        self.pools = {name: Pool(config.task.pool_size) for name in "ab"}
        pictures = Pictures(sets, config.dataset.resolution, config.dataset.flip)
        self.batches = load(pictures, settings.batch_size, device)
        self.T = lambda x: flip_and_shift(x, settings.shift)
        self.optimizers = build_adams({"g": self.G, "d": self.D}, settings, foreach=None)

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step(dict(zip("ab", next(self.batches), strict=True)))

    def step(self, real: Sides) -> None:
        """One turn of each player."""
        fake, cycled = self.translate(real)
        self.D.requires_grad_(False)
        self.optimizers["g"].zero_grad()
        sum(self.g_terms(real, fake, cycled).values(), torch.zeros(())).backward()
        self.optimizers["g"].step()
        self.D.requires_grad_(True)
        self.optimizers["d"].zero_grad()
        for name in "ab":
            shown = self.pools[name].exchange(fake[name])
            sum(self.d_terms(name, real[name], shown).values(), torch.zeros(())).backward()
        self.optimizers["d"].step()

    def translate(self, real: Sides) -> tuple[Sides, Sides]:
        """Both translations, and both ways back."""
        fake = {"b": self.G["ab"](real["a"]), "a": self.G["ba"](real["b"])}
        return fake, {"a": self.G["ba"](fake["b"]), "b": self.G["ab"](fake["a"])}

    def g_terms(self, real: Sides, fake: Sides, cycled: Sides) -> Terms:
        """What the generators pay."""
        terms: Terms = {}
        for name in "ab":
            weight = self.cycle[name]
            if self.identity > 0:
                same = self.G[TO[name]](real[name])
                l1 = F.l1_loss(same, real[name])
                terms[f"identity/{name}"] = self.identity * weight * l1
            logits = self.D[name](fake[name], None)
            terms[f"adversarial/g/{name}"] = 0.5 * F.mse_loss(logits, torch.ones_like(logits))
            terms[f"cycle/{name}"] = weight * F.l1_loss(cycled[name], real[name])
        return terms

    def d_terms(self, name: str, real: Tensor, shown: Tensor) -> Terms:
        """What one discriminator pays."""
        D, x, fake = self.D[name], Batch(real), Batch(shown.detach())
        on_real, on_fake = D(*x), D(*fake)
        of_real = F.mse_loss(on_real, torch.ones_like(on_real))
        of_fake = F.mse_loss(on_fake, torch.zeros_like(on_fake))
        terms = {"adversarial/d": 0.5 * (of_real + of_fake)}
        weights = self.settings.weights
        seen = Scored(D, self.T, weights, x, {"fake": fake}, on_real, on_fake)
        for term in self.terms:
            terms |= term(seen)
        return name_terms(terms, name)


def require_equal(task: CycleGAN, peer: CyclePeerStep, sets: Sets, config: DictConfig) -> None:
    """See `game.require_equal_losses`. The pools are empty: they show what is new."""
    for network in (task, peer.G, peer.D):
        make_repeatable(network)
    n, side = config.batch_size, config.dataset.resolution
    real = {name: sets[name].x[:n, :, :side, :side].float() / 127.5 - 1 for name in "ab"}
    reals = {name: Batch(x) for name, x in real.items()}
    fake, cycled = peer.translate(real)
    g_terms = task.player_loss("g", reals).terms
    compare("g", g_terms, task.player("g"), peer.g_terms(real, fake, cycled), peer.G)
    d_terms = task.player_loss("d", reals).terms
    theirs: Terms = {}
    for name in "ab":
        theirs |= peer.d_terms(name, real[name], peer.pools[name].exchange(fake[name]))
    compare("d", d_terms, task.player("d"), theirs, peer.D)
