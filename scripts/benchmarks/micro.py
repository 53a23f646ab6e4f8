"""How long single parts take, beside what other programs do in their place.

Data, T, the average of G, the Frechet term, folded convolutions, spectral norm, gradient penalties.
Where both ways are crgan's own (folds, penalties) the ratio is what choosing the faster one gives.
"""

import argparse
import gc
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.config.build import build_group
from crgan_cli.data.batches import Batches
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.frechet import covariance_factor, trace_sqrt_product
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.regularizers.penalties import GradientPenalty
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Batch
from crgan_cli.networks.fast.fused_resample import (
    FusedResampleConv3,
    NearestConv3,
    PooledConv3,
    ZeroInsertionConv3,
)
from crgan_cli.networks.fast.spectral import fixed_spectral_norm
from crgan_cli.networks.layers import find_weighted_layers
from crgan_cli.system.atomic import write_json, write_text
from crgan_cli.system.device import resolve_device
from crgan_cli.training.ema import EMA

from .game import compose_config, random_images
from .peers import batches, flip_and_shift, follow, normalising_at_each_call
from .timing import (
    Timing,
    Work,
    heading,
    machine,
    markdown,
    measure_seconds,
    repeat,
    time_interleaved,
)
from .train import words

SHIFT = 4  # pixels, as the papers have it at 32
ENOUGH = 0.05  # seconds that a look at the clock should take
MOST = 1000  # calls in one


class Scene(NamedTuple):
    """What the parts are tried on."""

    device: torch.device
    batch: int
    width: float
    dims: int  # features of the Frechet term


class Pair(NamedTuple):
    """Two ways to the same end."""

    what: str
    others: str  # what they do, in words
    ours: Work
    theirs: Work
    slow: bool = False  # theirs takes seconds: once is enough


def data(scene: Scene) -> list[Pair]:
    """A batch of real images on the device, in float."""
    images = random_images(compose_config("sndcgan", "none"))["real"]
    resident = Batches(images, batch_size=scene.batch, seed=0, device=scene.device, flip=False)
    loader, number = batches(images, scene.batch, scene.device), count()
    return [
        Pair(
            f"a batch of {scene.batch} images",
            "DataLoader, one image at a time",
            lambda: resident[next(number)],
            lambda: next(loader),
        )
    ]


def transform(scene: Scene) -> list[Pair]:
    """T of the consistency papers."""
    x = torch.rand(scene.batch, 3, 32, 32, device=scene.device) * 2 - 1
    T = FlipShift(SHIFT, 0.5, "reflect")
    return [
        Pair(
            f"T, flip and shift, {scene.batch} images",
            "boolean mask and index, numbers from the CPU",
            lambda: T.transform(x),
            lambda: flip_and_shift(x, SHIFT),
        )
    ]


def players(scene: Scene, architecture: str) -> dict[str, nn.Module]:
    """The two networks, initialised."""
    config = compose_config(architecture, "none", f"architecture.width={scene.width}")
    return {name: net.to(scene.device) for name, net in build_group(config.architecture).items()}


def average(scene: Scene) -> list[Pair]:
    """The average of BigGAN's generator."""
    G = players(scene, "biggan_lite")["generator"]
    ema, other = EMA(G, 0.999, 0), deepcopy(G).requires_grad_(False)
    return [
        Pair(
            "the average of BigGAN's G",
            "parameter by parameter",
            lambda: ema.update(G, 0.001),
            lambda: follow(other, G, 0.999),
        )
    ]


def frechet(scene: Scene) -> list[Pair]:
    """The part of FID that is not a sum, from two covariances."""
    import scipy.linalg

    samples = (torch.randn(2 * scene.dims, scene.dims, device=scene.device) for _ in range(2))
    first, second = (Moments.from_features(each).covariance for each in samples)
    a, b = first.cpu().numpy(), second.cpu().numpy()

    def ours() -> Tensor:
        return trace_sqrt_product(covariance_factor(first, scene.dims), second)

    what = f"Frechet term, {scene.dims} features"
    return [
        Pair(
            what,
            "eigenvalues of AB",
            ours,
            lambda: torch.linalg.eigvals(first @ second).sqrt().real.sum(),
            slow=True,
        ),
        Pair(what, "scipy.linalg.sqrtm of AB", ours, lambda: scipy.linalg.sqrtm(a @ b), slow=True),
    ]


def folds(scene: Scene) -> list[Pair]:
    """One convolution with its change of size, forward and backward, plain and folded."""
    found = []
    for kind, side in ((PooledConv3, 32), (NearestConv3, 16), (ZeroInsertionConv3, 16)):
        channels = max(1, round((128 if kind is PooledConv3 else 256) * scene.width))
        layer = kind(channels, channels).to(scene.device)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(min(8, scene.batch), channels, side, side, device=scene.device)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        found.append(
            Pair(
                f"{kind.__name__}, {channels} channels at {side}x{side}, fp32",
                "plain",
                forward_and_backward(layer, x, folded=True),
                forward_and_backward(layer, x, folded=False),
            )
        )
    return found


def forward_and_backward(layer: FusedResampleConv3, x: Tensor, *, folded: bool) -> Work:
    def work() -> None:
        layer.use_fused = folded
        y = layer(x)
        torch.autograd.grad(y, [x, *layer.parameters()], torch.ones_like(y))

    return work


def spectral_norm(scene: Scene) -> list[Pair]:
    """All normalised weights of a discriminator and the gradients of the stored ones."""
    found = []
    for name in ("sndcgan", "biggan_lite"):
        D = players(scene, name)["discriminator"].train()
        other = normalising_at_each_call(D)

        def ours(D: nn.Module = D) -> None:
            with fixed_spectral_norm(D):
                through(D)

        def theirs(other: nn.Module = other) -> None:
            through(other)

        found.append(Pair(f"spectral norm of {name}'s D", "PyTorch's, by layer", ours, theirs))
    return found


def through(D: nn.Module) -> None:
    """Reads all normalised weights once, and goes back through them."""
    weights: list[Tensor] = [layer.weight for layer in find_weighted_layers(D)]  # type: ignore[misc]
    stored = [p for name, p in D.named_parameters() if name.endswith(".original")]
    torch.autograd.grad(weights, stored, [torch.ones_like(each) for each in weights])


def penalty(scene: Scene) -> list[Pair]:
    """GP with its gradient in D's weights."""
    found = []
    for name in ("sndcgan", "resnet_sngan"):
        D = players(scene, name)["discriminator"].to(memory_format=torch.channels_last)  # type: ignore
        D.eval()
        x = torch.rand(2, scene.batch, 3, 32, 32, device=scene.device) * 2 - 1
        scored = ScoredViews({"real": Batch(x[0]), "fake": Batch(x[1])}, {}, D)

        def work(how: str, scored: ScoredViews = scored, D: nn.Module = D) -> Work:
            gp = GradientPenalty(10.0, 1, how)  # type: ignore[arg-type]

            def run() -> None:
                (term,) = gp.d_terms(scored).values()
                torch.autograd.grad(term, list(D.parameters()), materialize_grads=True)

            return run

        found.append(
            Pair(
                f"GP on {name}'s D, {scene.batch} images",
                "double backward",
                work("auto"),
                work("autograd"),
            )
        )
    return found


TOPICS: dict[str, Callable[[Scene], list[Pair]]] = {
    "data": data,
    "T": transform,
    "ema": average,
    "frechet": frechet,
    "folds": folds,
    "spectral_norm": spectral_norm,
    "penalty": penalty,
}


class Finding(NamedTuple):
    """A pair, timed: seconds a call."""

    what: str
    others: str
    theirs: float
    ours: float
    ratio: float
    reliable: bool


def time_pair(pair: Pair, device: torch.device, rounds: int) -> Finding:
    """Both ways in interleaved rounds."""
    ours, our_calls = repeat_enough(pair.ours, device)
    if pair.slow:
        theirs = measure_seconds(pair.theirs, device)
        mine = time_interleaved({"ours": ours}, device, rounds)["ours"]
        seconds = mine.median / our_calls
        return Finding(pair.what, pair.others, theirs, seconds, theirs / seconds, mine.reliable)
    others, their_calls = repeat_enough(pair.theirs, device)
    times: dict[str, Timing] = time_interleaved({"theirs": others, "ours": ours}, device, rounds)
    theirs, seconds = times["theirs"].median / their_calls, times["ours"].median / our_calls
    reliable = all(each.reliable for each in times.values())
    return Finding(pair.what, pair.others, theirs, seconds, theirs / seconds, reliable)


def repeat_enough(work: Work, device: torch.device) -> tuple[Work, int]:
    """The work so often that a clock can tell, after a warm-up; and how often that is."""
    work()
    calls = min(MOST, max(1, round(ENOUGH / max(measure_seconds(work, device), 1e-9))))
    return repeat(work, calls), calls


def table(findings: Sequence[Finding]) -> list[str]:
    """In Markdown."""
    rows = [
        (each.what, each.others, 1e3 * each.theirs, 1e3 * each.ours, format_ratio(each))
        for each in findings
    ]
    return markdown(("what", "others", "theirs, ms", "crgan's, ms", "ratio"), rows)


def format_ratio(finding: Finding) -> str:
    return f"{finding.ratio:.2f}{'' if finding.reliable else ' (unreliable)'}"


def run_micro(args: argparse.Namespace) -> None:
    """Times the parts, prints, and writes."""
    if unknown := [name for name in args.only if name not in TOPICS]:
        raise UserError(f"--only {','.join(unknown)}: choose among {', '.join(TOPICS)}.")
    if min(args.rounds, args.batch, args.dims) < 1:
        raise UserError("--rounds, --batch and --dims are whole numbers of at least 1.")
    device = resolve_device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    scene = Scene(device, args.batch, args.width, args.dims)
    findings: list[Finding] = []
    for name in args.only or TOPICS:
        findings += [time_pair(pair, device, args.rounds) for pair in TOPICS[name](scene)]
        gc.collect()
    conditions = {**machine(device), **scene._asdict(), "rounds": args.rounds}
    conditions["device"] = machine(device)["device"]
    text = "\n".join([*heading(conditions), "", *table(findings)])
    print(text)
    if args.json:
        rows = [each._asdict() for each in findings]
        write_json(args.json, {"conditions": conditions, "rows": rows}, indent=2)
    if args.markdown:
        write_text(args.markdown, text + "\n")


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `micro`."""
    verb = verbs.add_parser("micro", help="single parts, beside what others do in their place")
    verb.set_defaults(run=run_micro)
    add = verb.add_argument
    add("--only", type=words, default=[], metavar="A,B", help=f"of {', '.join(TOPICS)} (all)")
    add("--batch", type=int, default=64, help="images in a batch (64)")
    add("--width", type=float, default=1.0, help="of the networks (1.0)")
    add("--dims", type=int, default=2048, help="features of the Frechet term (2048)")
    add("--rounds", type=int, default=7, help="of which the median counts (7)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--threads", type=int, help="on a CPU; PyTorch's choice unless given")
    add("--json", type=Path, metavar="FILE", help="where all numbers go as well")
    add("--markdown", type=Path, metavar="FILE", help="where the table goes as well")
