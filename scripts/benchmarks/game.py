"""The two sides of the comparison: crgan's own trainer and the step of other programs.

Both play the same game with the same initial weights. `require_equal_losses` sees to that: it hands
both sides the same images, codes and T, and refuses to have them timed where they disagree.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crgan_cli.config.build import build_group
from crgan_cli.config.compose import compose
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan import build
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.types import Batch, Terms, Views, split_pair
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.trainer import Trainer

from . import pix2pix
from .peers import PeerStep, Settings
from .pix2pix import Pair, PairedPeerStep

NEVER = 10**9  # steps between lines of the log, and of the run
IMAGES = 4096  # of random pixels: they live on the device, and are as fast as any
CHECKED = 8  # images in the batch that both sides are compared on
LOSSES = 1e-4  # by which terms may differ, relative to 1 or to themselves where that is more
GRADIENTS = 1e-3  # by which a player's gradient may differ, relative to its length


def compose_config(architecture: str, regularizer: str, *overrides: str) -> DictConfig:
    """A run on random images of CIFAR-10's size, with an average of G and without metrics.

    A U-Net has pairs instead: see pix2pix.DEFAULTS.
    """
    fixed = ("dataset=cifar10", "metrics=none", "loss=non_saturating", "optimizer=adam")
    given = (
        f"architecture={architecture}",
        f"regularizer={regularizer}",
        "ema.decay=0.9999",
        f"steps={NEVER}",
        f"log.every={NEVER}",
    )
    paired = pix2pix.DEFAULTS if architecture == "unet" else ()
    return compose([*fixed, *given, *paired, *overrides])


def random_images(config: DictConfig, number: int | None = None) -> Images:
    """What a data set would give."""
    c, side, classes = (config.dataset[key] for key in ("channels", "resolution", "classes"))
    side = config.dataset.get("load_size", side)
    if number is None:
        number = pix2pix.IMAGES if "channels_in" in config.dataset else IMAGES
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (number, c, side, side), dtype=torch.uint8, generator=generator)
    return Images(x, torch.randint(0, max(1, classes), (number,), generator=generator))


Game = Generation | Pix2Pix


def build_game(config: DictConfig, *, g_twice: bool = False) -> Game:
    """The task with freshly made players. `g_twice`: see pix2pix.GTwice.

    Raises UserError for `g_twice` and another task than pix2pix.
    """
    task = build.build_task(config, build.build_networks(config))
    if not g_twice:
        return cast(Game, task)
    if not isinstance(task, Pix2Pix):
        raise UserError("--g-twice is about pix2pix, whose G runs once: give it with --arch unet.")
    return pix2pix.run_g_twice(task, config.task.conditional)


class Ours:
    """crgan's steps, as `crgan train` takes them, with nothing else between."""

    def __init__(
        self, config: DictConfig, images: Images, device: torch.device, *, g_twice: bool = False
    ) -> None:
        engine: Eager = build_group(config.engine)
        self.engine = engine.for_device(device)
        self.task = build_game(config, g_twice=g_twice)
        self.engine.prepare(self.task, device)
        ema = config.ema
        self.trainer = Trainer(
            self.task,
            self.engine,
            build_group(config.optimizer),
            Batches(
                images,
                batch_size=config.batch_size,
                seed=config.seed,
                device=device,
                flip=config.dataset.flip,
                crop=config.dataset.resolution,
                layout=self.engine.layout,
            ),
            ema=EMA(self.task.G, ema.decay, ema.start) if ema.decay is not None else None,
            seed=config.seed,
            steps=config.steps,
            log_every=config.log.every,
        )
        self.trainer.begin()

    def run(self, steps: int) -> None:
        """So many steps, and one reading of their losses, as at a line of the log."""
        for _ in range(steps):
            self.trainer.train_step()
        self.trainer.window.pop_means()


def build_peer(
    config: DictConfig, task: Game, images: Images, device: torch.device
) -> PeerStep | PairedPeerStep:
    """The step of other programs on copies of a task's networks."""
    settings = peer_settings(config)
    if isinstance(task, Pix2Pix):
        return PairedPeerStep(task, images, settings, config, device)
    return PeerStep((task.G, task.adversary.D), task.prior, images, settings, device)


def peer_settings(config: DictConfig) -> Settings:
    """What the step of other programs is told."""
    part = {key: value for key, value in config.regularizer.items() if key != "_target_"}
    return Settings(
        regularizer=regularizer_name(config),
        weights={str(key): float(value) for key, value in part.items() if _is_number(value)},
        adam={key: float(value) for key, value in config.optimizer.items() if _is_number(value)},
        n_dis=config.optimizer.n_dis,
        batch_size=config.batch_size,
        shift=config.augment.shift,
        decay=config.ema.decay or 0.0,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def regularizer_name(config: DictConfig) -> str:
    """The name of the regularizer's parts, as --reg has them."""
    parts = tuple(config.regularizer._target_ or ())
    return "icr" if parts == ("bcr", "zcr") else "+".join(parts) or "none"


class Mirror(Augment):
    """A T without chance, to compare two sides by."""

    def transform(self, x: Tensor) -> Tensor:
        return x.flip(3).roll(1, 2)


def require_equal_losses(config: DictConfig, images: Images) -> None:
    """Raises UserError where the two sides do not pay the same for the same images.

    On the CPU, in fp32, with spectral norm standing still, which each side iterates in its own way,
    and in pix2pix without dropout, which each side draws in its own way.
    """
    task = build_game(config)
    task.adversary.T = Mirror()
    peer = build_peer(config, task, images, torch.device("cpu"))
    peer.T = Mirror().transform
    torch.manual_seed(0)
    if isinstance(task, Pix2Pix):
        require_equal_for_pairs(task, cast(PairedPeerStep, peer), images, config.dataset.resolution)
    else:
        require_equal_for_codes(task, cast(PeerStep, peer), images)


def require_equal_for_pairs(task: Pix2Pix, peer: PairedPeerStep, images: Images, side: int) -> None:
    """`require_equal_losses` for pairs, in training mode: batch norm takes a batch's statistics."""
    for network in (task.G, task.adversary.D, peer.G, peer.D):
        make_repeatable(network)
    x = images.x[:CHECKED, :, :side, :side].float() / 127.5 - 1
    real = Pair(*split_pair(x, task.channels_in))
    fake = peer.G(real.a)
    G, D = task.G, task.adversary.D
    g_terms = task.player_loss("g", {"real": Batch(x)}).terms
    compare("g", g_terms, G, peer.g_terms(real, fake), peer.G)
    d_terms = task.player_loss("d", {"real": Batch(x)}).terms
    compare("d", d_terms, D, peer.d_terms(real, fake), peer.D)


def make_repeatable(network: nn.Module) -> None:
    """Without dropout, and with spectral norm standing still."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, parametrize.ParametrizationList):
            module.eval()


def require_equal_for_codes(task: Generation, peer: PeerStep, images: Images) -> None:
    """`require_equal_losses` for images from latents."""
    cpu = torch.device("cpu")
    task.adversary.D.eval()
    peer.D.eval()
    x = images.x[:CHECKED].float() / 127.5 - 1
    real = Batch(x, images.y[:CHECKED] if task.prior.classes else None)
    z, y = task.prior.sample_z(len(x), cpu), task.prior.sample_y(len(x), cpu)
    codes = {"fake": z} | task.adversary.regularizer.extra_latents(z)

    def fakes(G: nn.Module) -> Views:
        torch.manual_seed(1)  # so that both sides' penalties draw the same points
        return {role: Batch(G(code, y), y) for role, code in codes.items()}

    def still(G: nn.Module) -> Views:
        with torch.no_grad():
            return fakes(G)

    D = task.adversary.D
    d_terms = task.adversary.discriminator_loss(real, still(task.G)).terms
    compare("d", d_terms, D, peer.d_terms(real, still(peer.G))[0], peer.D)
    g_terms = task.adversary.generator_loss(fakes(task.G)).terms
    compare("g", g_terms, task.G, peer.g_terms(fakes(peer.G)), peer.G)


def compare(who: str, ours: Terms, mine: nn.Module, theirs: Terms, other: nn.Module) -> None:
    """Raises UserError where the terms differ, or the gradients of the player who pays them."""
    compare_terms(ours, theirs)
    compare_gradients(who, gradients(ours, mine), gradients(theirs, other))


def gradients(terms: Terms, player: nn.Module) -> dict[str, Tensor]:
    """Of the sum of the terms, by the parameter's name; zeros where it takes no part."""
    named = dict(player.named_parameters())
    total = torch.stack(list(terms.values())).sum()
    found = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def refuse(what: str) -> UserError:
    return UserError(
        f"The two sides do not play the same game: {what}. A ratio of their times would say "
        "nothing, so none is measured. Time crgan alone with --against none, and tell us."
    )


def compare_terms(ours: Terms, theirs: Terms) -> None:
    """Raises UserError where a term is not the same on both sides."""
    if ours.keys() != theirs.keys():
        raise refuse(f"crgan's terms are {sorted(ours)} and the others' {sorted(theirs)}")
    for name, term in ours.items():
        mine, other = term.item(), theirs[name].item()
        if not abs(mine - other) <= LOSSES * max(1.0, abs(mine)):
            raise refuse(f"{name} is {mine:.6g} for crgan and {other:.6g} for the others")


def compare_gradients(who: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raises UserError where a player is not pulled the same way on both sides."""
    apart = length([ours[name] - theirs[name] for name in ours])
    whole = length(list(ours.values()))
    if not apart <= GRADIENTS * whole:
        raise refuse(f"{who.upper()}'s gradients lie {apart / whole:.2g} of their length apart")


def length(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm of all numbers together."""
    return torch.stack([each.norm() for each in tensors]).norm().item()
