"""The two sides of the comparison: crgan's own trainer and the step of other programs.

Both play the same game with the same initial weights. `require_equal_losses` sees to that: it hands
both sides the same images, codes and T, and refuses to have them timed where they disagree.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from omegaconf import DictConfig
from torch import nn

from crgan_cli.config.build import build_group
from crgan_cli.config.compose import compose
from crgan_cli.data.batches import make_batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan import build
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.cyclegan import CycleGAN
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.tasks.progressive import Progressive
from crgan_cli.gan.tasks.stargan import StarGAN
from crgan_cli.gan.types import Batch, Views
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.accumulate import require_parts
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.trainer import Trainer

from . import cyclegan, pggan, pictures, pix2pix, stargan
from .equality import Mirror, compare
from .peers import PeerStep, Sets, Settings

NEVER = 10**9  # steps between lines of the log, and of the run
IMAGES = 4096  # of random pixels: they live on the device, and are as fast as any
CHECKED = 8  # images in the batch that both sides are compared on


class Peer(Protocol):
    """The step of other programs."""

    G: Any
    D: Any
    T: Any

    def run(self, steps: int) -> None:
        """So many steps."""
        ...


class Setup(NamedTuple):
    """A task, and the step of other programs for it."""

    task: type[Task]
    defaults: tuple[str, ...]  # settings
    build_peer: Callable[..., Peer]  # (task, sets, settings, config, device)
    require_equal: Callable[[Any, Any, Sets, DictConfig], None]


SETUPS = {
    "unet": Setup(Pix2Pix, pix2pix.DEFAULTS, pix2pix.PairedPeerStep, pix2pix.require_equal),
    "translator": Setup(
        CycleGAN, cyclegan.DEFAULTS, cyclegan.CyclePeerStep, cyclegan.require_equal
    ),
    "stargan": Setup(StarGAN, stargan.DEFAULTS, stargan.RelabellingPeerStep, stargan.require_equal),
    "pggan": Setup(
        Progressive,
        pggan.DEFAULTS,
        pggan.GrowingPeerStep,
        lambda task, peer, sets, config: require_equal_for_codes(task, peer, sets["real"]),
    ),
}
"""Architecture -> what it is timed with. All others have `Generation` and `PeerStep`."""


def compose_config(architecture: str, regularizer: str, *overrides: str) -> DictConfig:
    """A run on random images of CIFAR-10's size, with an average of G and without metrics.

    Some architectures have images and settings of their own: see SETUPS. A sum of regularizers is
    written "cr+gp".
    """
    fixed = ("dataset=cifar10", "metrics=none", "loss=non_saturating", "optimizer=adam")
    choice = f"[{regularizer.replace('+', ',')}]" if "+" in regularizer else regularizer
    given = (
        f"architecture={architecture}",
        f"regularizer={choice}",
        "ema.decay=0.9999",
        f"steps={NEVER}",
        f"log.every={NEVER}",
    )
    setup = SETUPS.get(architecture)
    own = setup.defaults if setup else ()
    return compose([*fixed, *given, *own, *overrides])


def find_setup(config: DictConfig) -> Setup | None:
    """None for the task of most."""
    task = build.get_task_class(config)
    return next((each for each in SETUPS.values() if each.task is task), None)


def find_step(config: DictConfig, *, fade: bool) -> int:
    """The step at which the last resolution is there in full, or in the middle of its fade.

    0 for networks that do not grow. Raises UserError for them with `fade`.
    """
    stages = Stages.from_settings(config)
    if not fade:
        return stages.grown_at
    last = stages.stages[-1]
    if last.fade_steps == 0:
        raise UserError("--fade is about networks that grow: give it with --arch pggan.")
    return last.first + last.fade_steps // 2


def random_images(config: DictConfig, number: int | None = None) -> Sets:
    """What a data set would give."""
    dataset = config.dataset
    side = dataset.get("load_size", dataset.resolution)
    number = number or (pictures.IMAGES if find_setup(config) else IMAGES)
    two = "channels_a" in dataset
    channels = {name: dataset[f"channels_{name}"] for name in "ab"} if two else {}
    generator = torch.Generator().manual_seed(0)

    def draw(c: int) -> Images:
        x = torch.randint(0, 256, (number, c, side, side), dtype=torch.uint8, generator=generator)
        y = torch.randint(0, max(1, dataset.classes), (number,), generator=generator)
        return Images(x, y)

    return {name: draw(c) for name, c in (channels or {"real": dataset.channels}).items()}


def build_game(config: DictConfig, *, g_twice: bool = False, first: int = 0) -> Task:
    """The task with freshly made players, at step `first`. `g_twice`: see pix2pix.GTwice.

    Raises UserError for `g_twice` and another task than pix2pix.
    """
    task = build.build_task(config, build.build_networks(config))
    task.set_turn("d", first * task.turns.count("d"))
    if not g_twice:
        return task
    if not isinstance(task, Pix2Pix):
        raise UserError("--g-twice is about pix2pix, whose G runs once: give it with --arch unet.")
    return pix2pix.run_g_twice(task, config.task.conditional)


class Ours:
    """crgan's steps from `first` on, as `crgan train` takes them, with nothing else between.

    `sets` have the resolution of the stage of these steps.
    """

    def __init__(
        self,
        config: DictConfig,
        sets: Sets,
        device: torch.device,
        *,
        g_twice: bool = False,
        first: int = 0,
    ) -> None:
        engine: Eager = build_group(config.engine)
        self.engine = engine.for_device(device, config.accumulate)
        self.task = build_game(config, g_twice=g_twice)
        self.engine.prepare(self.task, device)
        stages = Stages.from_settings(config)
        require_parts(self.task, config.accumulate, [stage.batch_size for stage in stages], 1)
        ema = config.ema
        self.trainer = Trainer(
            self.task,
            self.engine,
            build_group(config.optimizer),
            lambda stage: make_batches(
                sets,
                dict.fromkeys(sets, ()),
                batch_size=stage.batch_size,
                seed=config.seed,
                device=device,
                flip=config.dataset.flip,
                crop=stage.resolution,
                layout=self.engine.layout,
            ),
            stages,
            ema=EMA(self.task.player("g"), ema.decay, ema.start) if ema.decay is not None else None,
            seed=config.seed,
            steps=config.steps,
            log_every=config.log.every,
        )
        self.trainer.step = first
        self.trainer.begin()

    def run(self, steps: int) -> None:
        """So many steps, and one reading of their losses, as at a line of the log."""
        for _ in range(steps):
            self.trainer.train_step()
        self.trainer.window.pop_means()


def build_peer(config: DictConfig, task: Task, sets: Sets, device: torch.device) -> Any:
    """The step of other programs on copies of a task's networks."""
    settings = peer_settings(config)
    if setup := find_setup(config):
        return setup.build_peer(task, sets, settings, config, device)
    assert isinstance(task, Generation)
    players = (task.G, task.adversary.D)
    return PeerStep(players, task.prior, sets["real"], settings, device)


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


def require_equal_losses(config: DictConfig, sets: Sets, *, first: int = 0) -> None:
    """Raises UserError where the two sides do not pay the same for the same images.

    On the CPU, in fp32, with spectral norm standing still, which each side iterates in its own way,
    and in translations without dropout, which each side draws in its own way.
    """
    task = build_game(config, first=first)
    for module in task.modules():
        if isinstance(module, Adversary):
            module.T = Mirror()
    peer = build_peer(config, task, sets, torch.device("cpu"))
    peer.T = Mirror().transform
    torch.manual_seed(0)
    if setup := find_setup(config):
        setup.require_equal(task, peer, sets, config)
    else:
        assert isinstance(task, Generation)
        require_equal_for_codes(task, peer, sets["real"])


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
    g_terms = task.adversary.generator_loss(real, fakes(task.G)).terms
    compare("g", g_terms, task.G, peer.g_terms(fakes(peer.G)), peer.G)
