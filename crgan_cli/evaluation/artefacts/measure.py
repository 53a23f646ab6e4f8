"""The artefact measurements of one checkpoint: its networks and data in, files and lines out.

The formulas are in `leakage`, `consistency`, `diversity` and `memorisation`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig

from crgan_cli import __version__
from crgan_cli.config.build import build_group
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.images import fingerprint
from crgan_cli.errors import RunFailed
from crgan_cli.evaluation import load
from crgan_cli.evaluation.artefacts import figures
from crgan_cli.evaluation.artefacts.consistency import measure_consistency
from crgan_cli.evaluation.artefacts.diversity import measure_diversity
from crgan_cli.evaluation.artefacts.inputs import (
    MeasureOptions,
    TrainedModel,
    draw_fakes,
    part_of_progress,
)
from crgan_cli.evaluation.artefacts.leakage import Leakage, estimate_leakage, transforms_for
from crgan_cli.evaluation.artefacts.memorisation import measure_memorisation
from crgan_cli.gan.augment import Chain
from crgan_cli.report.findings import usual_strengths
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.system.atomic import explain_write_failure, write_json
from crgan_cli.system.numbers import format_mean, format_number, name_nonfinite

MAX_DISAGREEMENT = 0.1
"""Between the shares of single detectors: above it, they react to something other than T."""

MEMORISATION_BATCH = 250
"""Images per batch and columns of the table of distances, whatever the batch size of the rest."""

FAINT = 0.015
"""A larger expected share near the training set: of fewer than 200 images (our choice)."""


class Subject(NamedTuple):
    """What is measured: a checkpoint's model, the run's T, and what a record says of both."""

    model: TrainedModel
    T: Chain
    step: int
    weights: str  # of G: "ema" or "raw"
    record: dict[str, object]


class Measurement(NamedTuple):
    """The result of one measurement."""

    record: dict[str, object]
    plots: dict[str, Callable[[Path], None]]  # file name -> draws it
    lines: list[str]  # for a person


def load_subject(
    checkpoint: LoadedCheckpoint, config: DictConfig, device: torch.device, weights: str | None
) -> Subject:
    """Load the networks of a checkpoint and the data of `config`. `weights` are those of G.

    Raise RunFailed if the networks have weights that are not finite.
    """
    generator = load.load_generator(checkpoint, device, weights)
    dataset = build_dataset(config, generator.class_names)
    train, held_out = dataset.load_whole("train"), dataset.load_whole("test")
    T = Chain(**build_group(config.augment))
    T.set_full_side(min(dataset.sides))
    D = load.load_discriminator(checkpoint, device)
    for name, network in (("generator", generator.G), ("discriminator", D)):
        if not all(part.isfinite().all() for part in network.state_dict().values()):
            raise RunFailed(
                f"The {name} in {checkpoint.path} has weights that are not finite, so there is "
                "nothing to measure. Give an earlier checkpoint of its run."
            )
    record: dict[str, object] = {
        "checkpoint": str(checkpoint.path),
        "step": generator.step,
        "generator_weights": generator.weights,
        "crgan": __version__,
        "training_images_sha256": fingerprint(train),
        "held_out_images_sha256": fingerprint(held_out),
    }
    model = TrainedModel(generator.G, D, generator.prior, train, held_out, device)
    return Subject(model, T, generator.step, generator.weights, record)


def report_leakage(subject: Subject, options: MeasureOptions) -> Measurement:
    """How much of T the generator has absorbed."""
    model = subject.model
    fakes = draw_fakes(model, options)
    transforms = transforms_for(min(model.train.x.shape[2:]), subject.T)
    results = [
        estimate_leakage(
            name,
            T,
            model.train.x,
            model.held_out.x,
            fakes,
            device=model.device,
            seed=options.seed,
            progress=part_of_progress(options.progress, i, len(transforms)),
        )
        for i, (name, T) in enumerate(transforms.items())
    ]
    return Measurement(
        {"n": options.n, "transforms": {each.name: each.as_json() for each in results}},
        {"leakage.png": partial(figures.plot_leakage, results)},
        [format_leakage(each) for each in results],
    )


def format_leakage(result: Leakage) -> str:
    """The share of one T, with the share found in held-out real images."""
    share, floor = result.generated, result.floor
    if share is None or floor is None:
        return f"{result.name:10s} {result.reason}"
    low, high = min(result.by_detector), max(result.by_detector)
    warning = (
        f"; its detectors disagree ({100 * low:.0f} to {100 * high:.0f} %): the images are too "
        "unlike real ones to be measured"
        if high - low > MAX_DISAGREEMENT
        else ""
    )
    return (
        f"{result.name:10s} {100 * share.clipped:5.1f} % of generated images look augmented "
        f"[{100 * share.low:.1f}, {100 * share.high:.1f}], of held-out real ones "
        f"{100 * floor.clipped:.1f} % [{100 * floor.low:.1f}, {100 * floor.high:.1f}]{warning}"
    )


def report_consistency(subject: Subject, options: MeasureOptions) -> Measurement:
    """How far D moves with T and with z."""
    result = measure_consistency(subject.model, options)
    unit = result.unit or 1.0
    side = min(subject.model.train.x.shape[2:])
    usual = usual_strengths(side)
    lines = []
    for family, sources in result.curves.items():
        at = next(iter(sources.values())).at
        place = min(range(len(at)), key=lambda i: abs(at[i] - usual[family]))
        gaps = ", ".join(
            f"{source.replace('_', '-')} {format_number(curve.means[place] * unit, 3)}"
            for source, curve in sources.items()
        )
        lines.append(f"{family:10s} at {at[place]:g}: {gaps}")
    lines.append("           (mean squared move of D over twice its variance over real images)")
    plot = partial(figures.plot_consistency, result)
    return Measurement(result.as_json(), {"consistency.png": plot}, lines)


def report_diversity(subject: Subject, options: MeasureOptions) -> Measurement:
    """How far G moves with z, and how different its images are."""
    result = measure_diversity(subject.model, options)
    moves = ", ".join(
        f"{format_number(mean, 3)} at {sigma:g}"
        for sigma, mean in zip(result.rms.at, result.rms.means, strict=True)
    )
    lines = [f"G moves by an RMS of {moves} (sigma of z)"]
    for space, spread in result.spreads.items():
        if (ratio := spread.ratio) is not None:
            times = " +- ".join(format_mean(ratio.mean, 2 * ratio.se))
            lines.append(
                f"{space}: two generated images are {times} times as far apart as two real ones"
            )
    plot = partial(figures.plot_diversity, result)
    return Measurement(result.as_json(), {"diversity.png": plot}, lines)


def report_memorisation(subject: Subject, options: MeasureOptions) -> Measurement:
    """Whether G repeats the images that it was trained on."""
    options = options._replace(batch_size=MEMORISATION_BATCH)
    result = measure_memorisation(subject.model, options, closest=min(16, options.n))
    plots: dict[str, Callable[[Path], None]] = {
        "memorisation.png": partial(figures.plot_memorisation, result)
    }
    lines = []
    for space, near in result.spaces.items():
        plots[f"memorisation_pairs_{space}.png"] = partial(figures.save_pairs, result, space)
        p, low, high = near.auc
        expected, least, most = near.unsuspicious
        lines.append(
            f"{space}: a generated image is nearer to the training set than a held-out one with "
            f"probability {p:.3f} [{low:.3f}, {high:.3f}]; {100 * near.suspicious:.1f} % are "
            f"nearer than 99 % of held-out ones; {100 * expected:.1f} % would be expected "
            f"[{100 * least:.1f}, {100 * most:.1f}]"
            + ("; so few images say little" if expected > FAINT else "")
        )
    return Measurement(result.as_json(), plots, lines)


MEASUREMENTS: dict[str, Callable[[Subject, MeasureOptions], Measurement]] = {
    "leakage": report_leakage,
    "consistency": report_consistency,
    "diversity": report_diversity,
    "memorisation": report_memorisation,
}
"""By the name that a user types."""


def measure_one(subject: Subject, name: str, options: MeasureOptions, folder: Path) -> Measurement:
    """Run one measurement, and write its JSON and plots to `folder`.

    Raise RunFailed if they cannot be written, or if a number is not finite.
    """
    measurement = MEASUREMENTS[name](subject, options)
    if broken := name_nonfinite(measurement.record):
        raise RunFailed(
            f"The {name} of step {subject.step} has numbers that are not finite: "
            f"{', '.join(broken[:5])}. Measure an earlier checkpoint, or with another extractor=..."
        )
    record = {**subject.record, "measurement": name, **measurement.record}
    with explain_write_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", record, indent=1)
        for file, draw in measurement.plots.items():
            draw(folder / file)
    return measurement
