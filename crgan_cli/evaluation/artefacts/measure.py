"""What a trained pair of networks has learned: the artefact measurements of one checkpoint.

The formulas are in the modules beside this one; here each gets its part of a run, and its results
become
files and lines.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from crgan_cli import __version__
from crgan_cli.config.build import build_group
from crgan_cli.data.images import Images, build_dataset, fingerprint, to_uint8
from crgan_cli.errors import RunFailed
from crgan_cli.evaluation import load
from crgan_cli.evaluation.artefacts import consistency, diversity, leakage, memorisation
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.features import Progress
from crgan_cli.evaluation.sampler import Sampler, eval_mode, sample_latents
from crgan_cli.gan.augment import Chain
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.system.atomic import write_text

DISAGREEMENT = 0.1
"""Of single detectors' shares: more says that they go by something else than T."""

Plots = dict[str, Callable[[Path], None]]
"""File name -> what draws it."""


class MeasureOptions(NamedTuple):
    """How much is measured, and how."""

    n: int  # images of each kind
    seed: int
    batch_size: int
    extractor: Extractor | None  # None: pixels alone
    show: Progress


class TrainedModel(NamedTuple):
    """A checkpoint's networks, and the images that they were trained on and were not."""

    trained: LoadedGenerator
    D: nn.Module
    T: Chain  # the run's own
    train: Images
    held_out: Images
    device: torch.device
    source: dict[str, object]  # for the record


class Measured(NamedTuple):
    """What one measurement came to."""

    record: dict[str, object]
    plots: Plots
    lines: list[str]  # for a person


def load_model(
    found: LoadedCheckpoint, config: DictConfig, device: torch.device, weights: str | None
) -> TrainedModel:
    """The networks of a checkpoint and the data of `config`. `weights` are those of G.

    Raises RunFailed for networks that are not finite.
    """
    trained = load.load_generator(found, device, weights)
    dataset = build_dataset(config)
    train, held_out = dataset.load("train"), dataset.load("test")
    T = Chain(**build_group(config.augment))
    T.require_size(config.dataset.resolution)
    source: dict[str, object] = {
        "checkpoint": str(found.path),
        "step": trained.step,
        "generator_weights": trained.weights,
        "crgan": __version__,
        "training_images_sha256": fingerprint(train),
        "held_out_images_sha256": fingerprint(held_out),
    }
    D = load.load_discriminator(found, device)
    for name, network in (("generator", trained.G), ("discriminator", D)):
        if not all(part.isfinite().all() for part in network.state_dict().values()):
            raise RunFailed(
                f"the {name} in {found.path} holds numbers that are not finite: there is nothing "
                "to measure. Give an earlier checkpoint of its run."
            )
    return TrainedModel(trained, D, T, train, held_out, device, source)


def draw_images(subject: TrainedModel, extent: MeasureOptions) -> Tensor:
    """n images of G, (n, C, H, W) uint8 on the CPU."""
    G, prior = subject.trained.G, subject.trained.prior
    sampler = Sampler(sample_latents(prior, extent.n, extent.seed), subject.device)
    starts = range(0, extent.n, extent.batch_size)
    with eval_mode(G):
        batches = [
            sampler.draw(G, start, min(extent.batch_size, extent.n - start)) for start in starts
        ]
    return torch.cat([to_uint8(batch).cpu() for batch in batches])


def measure_leakage(subject: TrainedModel, extent: MeasureOptions) -> Measured:
    """How much of T the generator has absorbed."""
    fakes = draw_images(subject, extent)
    wanted = leakage.transforms_for(subject.train.x.shape[-1], subject.T)
    found = [
        leakage.estimate_leakage(
            name,
            T,
            subject.train.x,
            subject.held_out.x,
            fakes,
            device=subject.device,
            seed=extent.seed,
            progress=part(extent.show, number, len(wanted)),
        )
        for number, (name, T) in enumerate(wanted.items())
    ]
    return Measured(
        {"n": extent.n, "transforms": {each.name: each.as_json() for each in found}},
        {"leakage.png": lambda path: leakage.plot_leakage(found, path)},
        [format_leakage(each) for each in found],
    )


def part(show: Progress, number: int, of: int) -> Progress:
    """The progress of one of several equal parts, in hundredths of each."""
    return lambda done, total: show(100 * number + 100 * done // total, 100 * of)


def format_leakage(found: leakage.Leakage) -> str:
    """One T's share, with what it rests on."""
    if found.generated is None or found.floor is None:
        return f"{found.name:10s} {found.reason}"
    share, floor = found.generated, found.floor
    apart = max(found.by_detector) - min(found.by_detector)
    warning = (
        f"; its detectors disagree ({100 * min(found.by_detector):.0f} to "
        f"{100 * max(found.by_detector):.0f} %): images too unlike real ones to be read"
        if apart > DISAGREEMENT
        else ""
    )
    return (
        f"{found.name:10s} {100 * share.shown:5.1f} % of generated images look augmented "
        f"[{100 * share.low:.1f}, {100 * share.high:.1f}], of held-out real ones "
        f"{100 * floor.shown:.1f} % [{100 * floor.low:.1f}, {100 * floor.high:.1f}]{warning}"
    )


def measure_consistency(subject: TrainedModel, extent: MeasureOptions) -> Measured:
    """How far D moves with T and with the code."""
    found = consistency.measure_consistency(
        subject.trained.G,
        subject.D,
        subject.trained.prior,
        subject.train,
        subject.held_out,
        n=extent.n,
        seed=extent.seed,
        device=subject.device,
        batch_size=extent.batch_size,
        progress=extent.show,
    )
    unit = found.unit or 1.0
    side = subject.train.x.shape[-1]
    usual = {"cutout": side / 2, "shift": side / 8, "noise": 0.1, "latent": 0.1}
    lines = []
    for family, sources in found.curves.items():
        at = next(iter(sources.values())).at
        place = min(range(len(at)), key=lambda i: abs(at[i] - usual[family]))
        ends = ", ".join(
            f"{source.replace('_', '-')} {curve.means[place] * unit:.3f}"
            for source, curve in sources.items()
        )
        lines.append(f"{family:10s} at {at[place]:g}: {ends}")
    lines.append("           (mean squared move of D over twice its variance over real images)")
    return Measured(
        found.as_json(),
        {"consistency.png": lambda path: consistency.plot_consistency(found, path)},
        lines,
    )


def measure_diversity(subject: TrainedModel, extent: MeasureOptions) -> Measured:
    """How far G moves with the code, and how different its images are."""
    found = diversity.measure_diversity(
        subject.trained.G,
        subject.trained.prior,
        subject.held_out,
        extractor=extent.extractor,
        n=extent.n,
        seed=extent.seed,
        device=subject.device,
        batch_size=extent.batch_size,
        progress=extent.show,
    )
    moves = ", ".join(
        f"{mean:.3f} at {sigma:g}"
        for sigma, mean in zip(found.rms.at, found.rms.means, strict=True)
    )
    lines = [f"G moves by an RMS of {moves} (sigma of z)"]
    for space, spread in found.spreads.items():
        if (ratio := spread.ratio) is not None:
            lines.append(
                f"{space}: two generated images are {ratio.mean:.3f} +- {2 * ratio.se:.3f} times "
                "as far apart as two real ones"
            )
    return Measured(
        found.as_json(),
        {"diversity.png": lambda path: diversity.plot_diversity(found, path)},
        lines,
    )


def measure_memorisation(subject: TrainedModel, extent: MeasureOptions) -> Measured:
    """Whether G repeats the images that it was trained on."""
    found = memorisation.measure_memorisation(
        subject.trained.G,
        subject.trained.prior,
        subject.train,
        subject.held_out,
        extractor=extent.extractor,
        n=extent.n,
        seed=extent.seed,
        device=subject.device,
        closest=min(16, extent.n),
        progress=extent.show,
    )
    plots: Plots = {"memorisation.png": lambda path: memorisation.plot_memorisation(found, path)}
    lines = []
    for space, close in found.spaces.items():
        plots[f"memorisation_pairs_{space}.png"] = pairs_plot(found, space)
        p, low, high = close.auc
        share, least, most = close.suspicious
        lines.append(
            f"{space}: a generated image is nearer to the training set than a held-out one with "
            f"probability {p:.3f} [{low:.3f}, {high:.3f}]; {100 * share:.1f} % "
            f"[{100 * least:.1f}, {100 * most:.1f}] are suspiciously near (1 % expected)"
        )
    return Measured(found.as_json(), plots, lines)


def pairs_plot(found: memorisation.Memorisation, space: str) -> Callable[[Path], None]:
    """The picture of the closest pairs in one space."""
    return lambda path: memorisation.save_pairs(found, space, path)


MEASUREMENTS: dict[str, Callable[[TrainedModel, MeasureOptions], Measured]] = {
    "leakage": measure_leakage,
    "consistency": measure_consistency,
    "diversity": measure_diversity,
    "memorisation": measure_memorisation,
}
"""By the name a user types, in the order of the papers' questions."""


def measure_one(subject: TrainedModel, name: str, extent: MeasureOptions, folder: Path) -> Measured:
    """One measurement, with its JSON and its plots in `folder`.

    Raises RunFailed where they cannot be written.
    """
    outcome = MEASUREMENTS[name](subject, extent)
    record = {**subject.source, "measurement": name, **outcome.record}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
        for file, draw in outcome.plots.items():
            draw(folder / file)
    except OSError as error:
        raise RunFailed(f"writing to {folder} failed: {error.strerror or error}.") from error
    return outcome
