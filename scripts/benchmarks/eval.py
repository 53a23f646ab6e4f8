"""Time the parts of a score.

Scores N images of an untrained SNDCGAN: G's draw, quantising, resizing and the extractor, moments,
Frechet term, KID and IS. The numbers themselves mean nothing. The same process times what other
programs do instead, so that the ratio holds for any load: the Frechet term by the eigenvalues of a
product that is not symmetric, and one PNG per image.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from crgan_cli.data.images import to_uint8
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import weights
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.efficientnet import EfficientNetLite0
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.evaluation.metrics.features import FeatureSet, extract
from crgan_cli.evaluation.metrics.frechet import (
    FrechetDistance,
    covariance_factor,
    trace_sqrt_product,
)
from crgan_cli.evaluation.metrics.inception import SOURCE, Inception
from crgan_cli.evaluation.metrics.inception_score import InceptionScore
from crgan_cli.evaluation.metrics.kid import KID
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.evaluation.pictures import encode_png
from crgan_cli.evaluation.sampler import Sampler, eval_mode, sample_latents
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.networks.sndcgan import SNDCGANGenerator
from crgan_cli.system.atomic import write_json
from crgan_cli.system.device import resolve_device

from .timing import Stopwatch, heading, machine, measure_seconds

Z_DIM = 128
SPLITS = 10  # of the Inception score
ROUND_TRIPS = 1000  # at most so many images go through a PNG: each costs the same

DRAW, QUANTISE, EXTRACT, MOMENTS = "G's draw", "quantise", "resize and extractor", "moments"
FRECHET, KID_NAME, IS = "Frechet term", "KID", "IS"
PARTS = (DRAW, QUANTISE, EXTRACT, MOMENTS, FRECHET, KID_NAME, IS)


class Timed:
    """An extractor whose calls are timed."""

    def __init__(self, extractor: Extractor, watch: Stopwatch) -> None:
        self.extractor, self.watch = extractor, watch
        self.dims = extractor.dims

    def __call__(self, images: Tensor) -> Features:
        with self.watch.time(EXTRACT):
            return self.extractor(images)


class Unloaded(FeatureExtractorInceptionV3):
    """Inception without its weights file."""

    def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
        pass


def random_inception() -> dict[str, Tensor]:
    """Return random weights of the right shapes."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    net = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # with PyTorch's default the signal vanishes
    return net.state_dict()


def build_extractor(name: str, side: int) -> tuple[Extractor, str]:
    """Build the extractor. Return it with the origin of its weights."""
    if name == "efficientnet_lite0":
        return EfficientNetLite0(side), "ImageNet"
    if weights.find_env_file(SOURCE) or SOURCE.cache().is_file():
        return Inception(), "published"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save(random_inception(), path)
        return Inception(str(path)), "random (the published file is not here; as fast)"


class Scene:
    """The generator, its latents and the extractor."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.batch_size = device, args.batch_size
        self.extractor, self.weights = build_extractor(args.extractor, args.extractor_side)
        self.extractor.to(device)
        G = SNDCGANGenerator(resolution=args.resolution, channels=3, z_dim=Z_DIM, width=1.0)
        self.G = G.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        latents = sample_latents(Prior("uniform", Z_DIM, 0), args.n, seed=0)
        self.sampler = Sampler(latents, device)

    def images(self, start: int, n: int) -> Tensor:
        """Draw (n, 3, H, W) images in [-1, 1]."""
        return self.sampler.draw(self.G, start, n)

    def features(self, count: int, watch: Stopwatch) -> FeatureSet:
        """Extract the features of the first `count` images."""

        def draw(start: int, n: int) -> Tensor:
            with watch.time(DRAW):
                images = self.images(start, n)
            with watch.time(QUANTISE):
                return to_uint8(images)

        timed = cast(Extractor, Timed(self.extractor, watch))
        with watch.time("loop"):
            found = extract(
                timed,
                draw,
                count,
                self.batch_size,
                which="generated",
                required={"pool", "logits"},
            )
        inside = sum(watch.seconds[part] for part in (DRAW, QUANTISE, EXTRACT))
        watch.seconds[MOMENTS] = watch.seconds.pop("loop") - inside
        return found

    def score(self, count: int) -> dict[str, float]:
        """Return the seconds per part for one score of `count` images."""
        watch = Stopwatch(self.device)
        fake = self.features(count, watch)
        pool = randomise_features(fake.require_pool())
        real = FeatureSet(Moments.from_features(pool), pool)
        for part, metric in build_metrics(count).items():
            with watch.time(part):
                metric(real, fake)
        return {part: watch.seconds[part] for part in PARTS}


def build_metrics(count: int) -> dict[str, Metric]:
    """Return part -> metric. New objects: a cached factor of the real covariance would make all
    Frechet terms but the first cheaper, as it does during training."""
    return {
        FRECHET: FrechetDistance(),
        KID_NAME: KID(),
        IS: InceptionScore(min(SPLITS, count)),
    }


def randomise_features(pool: Tensor) -> Tensor:
    """Return random features of the same mean and deviation, in place of the real images."""
    deviation, mean = torch.std_mean(pool, 0)
    return mean + deviation * torch.randn_like(pool)


def compare_with_others(scene: Scene, count: int) -> dict[str, dict[str, float]]:
    """Time our and other programs' Frechet term and conversion of images, in seconds."""
    dims, device = scene.extractor.dims, scene.device
    first, second = (
        Moments.from_features(torch.randn(2 * dims, dims, device=device)).covariance
        for _ in range(2)
    )
    images = scene.images(0, min(count, ROUND_TRIPS, scene.batch_size))
    round_trip(images[:1], device)  # warm-up: Pillow loads its formats at the first
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"Frechet term, {dims} features: eigenvalues of AB": (
            lambda: trace_sqrt_product(covariance_factor(first, dims), second),
            lambda: torch.linalg.eigvals(first @ second).sqrt().real.sum(),
        ),
        f"{len(images)} images to uint8: through a PNG each": (
            lambda: to_uint8(images),
            lambda: round_trip(images, device),
        ),
    }
    found = {}
    for name, (ours, others) in pairs.items():
        ours()  # warm-up
        mine = median(measure_seconds(ours, device) for _ in range(3))
        theirs = measure_seconds(others, device)
        found[name] = {"ours": mine, "others": theirs, "ratio": theirs / mine}
    return found


def round_trip(images: Tensor, device: torch.device) -> Tensor:
    """Write each image to a PNG in memory, read it again, and convert it to a float tensor."""
    read = []
    for image in images:
        with Image.open(io.BytesIO(encode_png(to_uint8(image).cpu()))) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        read.append(pixels.permute(2, 0, 1).float() / 255)
    return (torch.stack(read) * 255).to(torch.uint8).to(device)


def run_eval(args: argparse.Namespace) -> None:
    """Time a score, print and write."""
    if args.n < 2:
        raise UserError(f"--n {args.n}: a covariance needs at least 2 images.")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    scene = Scene(args, device)
    with eval_mode(scene.G):
        scene.score(min(args.n, 2 * args.batch_size))  # warm-up: memory, kernels, libraries
        rounds = [scene.score(args.n) for _ in range(args.rounds)]
        others = {} if args.alone else compare_with_others(scene, args.n)
    parts = {part: median(each[part] for each in rounds) for part in PARTS}
    total = sum(parts.values())
    record = {
        **machine(device),
        "extractor": scene.extractor.name,
        "precision": scene.extractor.precision,
        "weights": scene.weights,
        **{key: getattr(args, key) for key in ("n", "batch_size", "resolution", "rounds")},
        "seconds": total,
        "images_per_second": args.n / total,
        "parts": {part: {"seconds": s, "share": s / total} for part, s in parts.items()},
        "others": others,
    }
    conditions = {key: value for key, value in record.items() if key not in ("parts", "others")}
    print("\n".join([*heading(conditions), *make_table(record, args.n)]))
    if args.json:
        write_json(args.json, record, indent=2)


def make_table(record: dict[str, object], n: int) -> list[str]:
    """Return the parts and the comparison, in Markdown."""
    parts = cast(dict[str, dict[str, float]], record["parts"])
    others = cast(dict[str, dict[str, float]], record["others"])
    lines = ["", "| part | seconds | share | images/s |", "|---|---|---|---|"]
    for part, found in parts.items():
        seconds, share = found["seconds"], found["share"]
        lines.append(f"| {part} | {seconds:.4f} | {share:.1%} | {n / max(seconds, 1e-9):.0f} |")
    if others:
        lines += ["", "| what others do | theirs, s | crgan's, s | ratio |", "|---|---|---|---|"]
    for name, found in others.items():
        lines.append(
            f"| {name} | {found['others']:.4f} | {found['ours']:.5f} | {found['ratio']:.1f} |"
        )
    return lines


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb `eval`."""
    verb = verbs.add_parser("eval", help="the parts of scoring N images")
    verb.set_defaults(run=run_eval)
    add = verb.add_argument
    extractors = ("efficientnet_lite0", "inception")
    add("--extractor", choices=extractors, default=extractors[0])
    add("--extractor-side", type=int, default=224, help="pixels, of efficientnet_lite0 (224)")
    add("--n", type=int, default=1000, help="images per score (1000)")
    add("--batch-size", type=int, default=100, help="(100)")
    add("--resolution", type=int, default=32, help="of the images (32), a multiple of 8")
    add("--rounds", type=int, default=3, help="scores, of which the median is reported (3)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--threads", type=int, help="on a CPU; default: PyTorch's choice")
    add("--alone", action="store_true", help="without the comparison with other programs")
    add("--json", type=Path, metavar="FILE", help="also write all numbers to this file")
