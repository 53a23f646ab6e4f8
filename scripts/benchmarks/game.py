"""The two sides of the comparison: crgan's own trainer and the step of other programs.

Both play the same game with the same initial weights. `require_equal_losses` sees to that: it hands
both sides the same images, codes and T, and refuses to have them timed where they disagree.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from crgan_cli.config.build import build_group
from crgan_cli.config.compose import compose
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan import build
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.types import Batch, Terms, Views
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.trainer import Trainer

from .peers import PeerStep, Settings

NEVER = 10**9  # steps between lines of the log, and of the run
IMAGES = 4096  # of random pixels: they live on the device, and are as fast as any
CHECKED = 8  # images in the batch that both sides are compared on
LOSSES = 1e-4  # by which terms may differ, relative to 1 or to themselves where that is more
GRADIENTS = 1e-3  # by which a player's gradient may differ, relative to its length


def configured(architecture: str, regularizer: str, *overrides: str) -> DictConfig:
    """A run on random images of CIFAR-10's size, with an average of G and without metrics."""
    fixed = ("dataset=cifar10", "metrics=none", "loss=non_saturating", "optimizer=adam")
    given = (
        f"architecture={architecture}",
        f"regularizer={regularizer}",
        "ema.decay=0.9999",
        f"steps={NEVER}",
        f"log.every={NEVER}",
    )
    return compose([*fixed, *given, *overrides])


def random_images(config: DictConfig, number: int = IMAGES) -> Images:
    """What a data set would give."""
    c, side, classes = (config.dataset[key] for key in ("channels", "resolution", "classes"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (number, c, side, side), dtype=torch.uint8, generator=generator)
    return Images(x, torch.randint(0, max(1, classes), (number,), generator=generator))


def game_of(config: DictConfig) -> Generation:
    """The task with freshly made players."""
    players = build.build_networks(config)
    return cast(Generation, build.build_task(config, players))


class Ours:
    """crgan's steps, as `crgan train` takes them, with nothing else between."""

    def __init__(self, config: DictConfig, images: Images, device: torch.device) -> None:
        engine: Eager = build_group(config.engine)
        self.engine = engine.for_device(device)
        self.task = game_of(config)
        self.engine.prepare(self.task, device)
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
                layout=self.engine.layout,
            ),
            ema=EMA(self.task.G, config.ema.decay, config.ema.start),
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


def peer_of(config: DictConfig, task: Generation, images: Images, device: torch.device) -> PeerStep:
    """The step of other programs on copies of a task's networks."""
    part = {key: value for key, value in config.regularizer.items() if key != "_target_"}
    weights = {str(key): float(value) for key, value in part.items() if _is_number(value)}
    settings = Settings(
        regularizer=regularizer_of(config),
        weights=weights,
        adam={key: float(value) for key, value in config.optimizer.items() if _is_number(value)},
        n_dis=config.optimizer.n_dis,
        batch_size=config.batch_size,
        shift=config.augment.shift,
        decay=config.ema.decay,
    )
    networks = (task.G, task.adversary.D)
    return PeerStep(networks, task.prior, images, settings, device)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def regularizer_of(config: DictConfig) -> str:
    """The name of the regularizer's parts, as --reg has them."""
    parts = tuple(config.regularizer._target_ or ())
    return "icr" if parts == ("bcr", "zcr") else "+".join(parts) or "none"


class Mirror(Augment):
    """A T without chance, to compare two sides by."""

    def transform(self, x: Tensor) -> Tensor:
        return x.flip(3).roll(1, 2)


def require_equal_losses(config: DictConfig, images: Images) -> None:
    """Raises UserError where the two sides do not pay the same for the same images.

    On the CPU, in fp32, with spectral norm standing still: each side iterates it in its own way.
    """
    cpu = torch.device("cpu")
    task = game_of(config)
    task.adversary.T = Mirror()
    task.adversary.D.eval()
    peer = peer_of(config, task, images, cpu)
    peer.D.eval()
    peer.T = Mirror().transform
    torch.manual_seed(0)
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
