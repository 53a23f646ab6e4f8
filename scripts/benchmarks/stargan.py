"""The training step of other programs for images whose labels are changed.

Its structure was read from the authors' code of StarGAN; the code here is our own:

- a picture is mirrored and converted for itself, with Pillow; labels become 0 and 1 on the host;
- each of D's turns generates images with a graph that nobody uses, and calls D for each view: the
  real images, the generated ones, T of either, and points between for the penalty, which is
  differentiated twice by autograd;
- G's turn, on the batch of D's last one, calls G there and back. D's weights get gradients in it,
  and nobody uses them;
- a batch's labels are put in a random order once, for both players;
- the losses are fetched from the device in each turn; Adam is PyTorch's default; fp32, NCHW; no
  average of G.
"""

from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from crgan_cli.data.images import Images
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.stargan import StarGAN, shuffle_rows
from crgan_cli.gan.types import Batch, Terms

from .equality import compare
from .peers import Scored, Sets, Settings, build_adams, find_terms, flip_and_shift, load
from .pictures import Cut, other_network, picture

DEFAULTS = (
    "task=stargan",
    "dataset=folder",
    "dataset.root=.",
    "dataset.resolution=64",
    "dataset.classes=5",
    "dataset.flip=true",
    "loss=wasserstein",
    "optimizer=stargan",
    "architecture.width=0.25",
    "batch_size=4",
    "ema.decay=null",
)
"""Settings for an architecture that changes labels, unless others are given."""

CLASSIFICATION = "classification"  # of the regularizers, the one that G pays too


class Pictures(TorchDataset[tuple[Tensor, Tensor]]):
    """Pictures that are mirrored when they are asked for, and their classes."""

    def __init__(self, images: Images, flip: bool) -> None:
        self.pictures, self.y = [picture(x) for x in images.x], images.y
        self.flip = flip

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        whole = self.pictures[index]
        return Cut.draw(whole, whole.width, self.flip).convert(whole), self.y[index]


class Relabelled(NamedTuple):
    """Real images and what they are to become."""

    x: Tensor
    y: Tensor  # (N,) class ids
    labels: Tensor  # (N, classes), of y
    wanted: Tensor  # (N,) class ids
    target: Tensor  # (N, classes), of wanted


class RelabellingPeerStep:
    """n_dis turns of D and one of G. The networks are copied, and stay as they were."""

    def __init__(
        self,
        task: StarGAN,
        sets: Sets,
        settings: Settings,
        config: DictConfig,
        device: torch.device,
    ) -> None:
        rest = [name for name in settings.regularizer.split("+") if name != CLASSIFICATION]
        self.terms = find_terms("+".join(rest) or "none")
        self.G, self.D = other_network(task.G, device), other_network(task.adversary.D, device)
        self.settings, self.classes = settings, int(config.dataset.classes)
        self.lambda_rec: float = config.task.lambda_rec
        self.batches = load(
            Pictures(sets["real"], config.dataset.flip), settings.batch_size, device
        )
        self.T = lambda x: flip_and_shift(x, settings.shift)
        self.optimizers = build_adams({"g": self.G, "d": self.D}, settings, foreach=None)
        self.read: dict[str, float] = {}

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            reals = [self.next_batch() for _ in range(self.settings.n_dis)]
            for real in reals:
                self.take_turn("d", self.d_terms(real, self.G(real.x, real.target)))
            last = reals[-1]
            self.take_turn("g", self.g_terms(last, self.G(last.x, last.target)))

    def next_batch(self) -> Relabelled:
        """Real images, each to become what another one of the batch is."""
        x, y = next(self.batches)
        return self.relabel(x, y, y[torch.randperm(len(y))])

    def take_turn(self, who: str, terms: Terms) -> None:
        """One update of a player. The gradients of both are forgotten before it."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        self.optimizers[who].step()
        self.read |= {name: term.item() for name, term in terms.items()}

    def relabel(self, x: Tensor, y: Tensor, wanted: Tensor) -> Relabelled:
        """Real images with their labels and those that they are to get."""
        labels, target = (self.encode(ids).to(x.device) for ids in (y, wanted))
        return Relabelled(x, y, labels, wanted, target)

    def encode(self, ids: Tensor) -> Tensor:
        """(N,) class ids -> (N, classes) zeros and ones."""
        encoded = torch.zeros(len(ids), self.classes)
        encoded[torch.arange(len(ids)), ids.long().cpu()] = 1
        return encoded

    def d_terms(self, real: Relabelled, fake: Tensor) -> Terms:
        """What D pays."""
        x, fakes = Batch(real.x), Batch(fake.detach())
        on_real, classes = self.D(*x)
        on_fake, _ = self.D(*fakes)
        weight = self.settings.weights["lambda_cls"]
        terms = {
            "adversarial/d": on_fake.mean() - on_real.mean(),
            "classification/d": weight * F.cross_entropy(classes, real.y),
        }
        seen = Scored(
            lambda x, y: self.D(x, y).logits,
            self.T,
            self.settings.weights,
            x,
            {"fake": fakes},
            on_real,
            on_fake,
        )
        for term in self.terms:
            terms |= term(seen)
        return terms

    def g_terms(self, real: Relabelled, fake: Tensor) -> Terms:
        """What G pays."""
        logits, classes = self.D(fake, None)
        weight = self.settings.weights["lambda_cls"]
        back = self.G(fake, real.labels)
        return {
            "adversarial/g": -logits.mean(),
            "classification/g": weight * F.cross_entropy(classes, real.wanted),
            "reconstruction": self.lambda_rec * F.l1_loss(back, real.x),
        }


def require_equal(task: StarGAN, peer: RelabellingPeerStep, sets: Sets, config: DictConfig) -> None:
    """See `game.require_equal_losses`."""
    task.adversary.D.eval()  # spectral norm stands still
    peer.D.eval()
    n = config.batch_size
    x, y = sets["real"].x[:n].float() / 127.5 - 1, sets["real"].y[:n]
    reals = {"real": Batch(x, y)}
    of_classes = Labels.from_settings(config.dataset)

    def draw() -> tuple[Relabelled, Tensor]:
        """What our task draws first in a turn."""
        torch.manual_seed(1)
        target = shuffle_rows(of_classes.encode(y))
        real = peer.relabel(x, y, target.argmax(1))
        return real, peer.G(real.x, real.target)

    torch.manual_seed(1)
    d_terms = task.player_loss("d", reals).terms
    compare("d", d_terms, task.adversary.D, peer.d_terms(*draw()), peer.D)
    torch.manual_seed(1)
    g_terms = task.player_loss("g", reals).terms
    compare("g", g_terms, task.G, peer.g_terms(*draw()), peer.G)
