"""Time the arithmetic of FID and KID beside torch-fidelity's, on the same features.

Both get the features of N real and N generated images and return the distance. As a score meets
them, crgan's moments grow by batches. The features are random, with the decaying deviations and the
zeros of Inception's. In float64 on the CPU, since torch-fidelity's functions are NumPy's.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from crgan_cli.evaluation.metrics.frechet import covariance_factor, frechet_distance
from crgan_cli.evaluation.metrics.kid import kernel_distance
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.system.atomic import write_json

from .timing import heading, machine, markdown, time_interleaved

SUBSETS, SUBSET_SIZE = 100, 1000


def make_features(n: int, dims: int, seed: int) -> Tensor:
    """Return (n, dims) float32 features, none negative."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dims, 64, generator=torch.Generator().manual_seed(0)) / 8
    shared = torch.randn(n, 64, generator=generator) @ mix.T
    alone = torch.randn(n, dims, generator=generator)
    return ((shared + alone) * torch.logspace(-2, 0, dims) + 0.1).relu()


def collect(features: Tensor, batch_size: int) -> Moments:
    """Return the moments of features that come in batches."""
    moments = Moments(features.shape[1])
    for batch in features.split(batch_size):
        moments.update(batch)
    return moments


def run_distances(args: argparse.Namespace) -> None:
    """Time both, by turns, print and write."""
    torch.set_num_threads(args.threads)
    real, fake = (make_features(args.n, args.dims, seed) for seed in (1, 2))
    values: dict[str, float] = {}
    theirs_real = fid_features_to_statistics(real)
    ours_real = collect(real, args.batch_size)
    factor = covariance_factor(ours_real.covariance, args.n - 1)  # known too, as in training

    def fid_theirs() -> None:
        first, second = (fid_features_to_statistics(each) for each in (real, fake))
        values["FID, torch-fidelity"] = fid_statistics_to_metric(first, second, False)[
            KEY_METRIC_FID
        ]

    def fid_ours() -> None:
        first, second = (collect(each, args.batch_size) for each in (real, fake))
        values["FID, crgan"] = frechet_distance(first, second)

    def cached_theirs() -> None:
        found = fid_statistics_to_metric(theirs_real, fid_features_to_statistics(fake), False)
        values["FID with known real moments, torch-fidelity"] = found[KEY_METRIC_FID]

    def cached_ours() -> None:
        found = frechet_distance(ours_real, collect(fake, args.batch_size), factor)
        values["FID with known real moments, crgan"] = found

    def kid_theirs() -> None:
        size = min(SUBSET_SIZE, args.n)
        found = kid_features_to_metric(
            fake, real, kid_subsets=SUBSETS, kid_subset_size=size, verbose=False
        )
        values["KID, torch-fidelity"] = found[KEY_METRIC_KID_MEAN]

    def kid_ours() -> None:
        values["KID, crgan"] = kernel_distance(fake, real).mean

    works = {
        "FID, torch-fidelity": fid_theirs,
        "FID, crgan": fid_ours,
        "FID with known real moments, torch-fidelity": cached_theirs,
        "FID with known real moments, crgan": cached_ours,
    }
    if args.kid:
        works |= {"KID, torch-fidelity": kid_theirs, "KID, crgan": kid_ours}
    device = torch.device("cpu")
    collect(fake[: args.batch_size], args.batch_size)  # warm-up
    times = time_interleaved(works, device, args.rounds)
    rows = [(name, *(times[name][i] for i in range(4)), f"{values[name]:.10g}") for name in works]
    sizes = {key: getattr(args, key) for key in ("n", "dims", "batch_size", "rounds")}
    record = {**machine(device), **sizes}
    lines = markdown(("what", "median, s", "best, s", "CPU, s", "spread", "value"), rows)
    print("\n".join([*heading(record), "", *lines, ""]))
    for name in ("FID", "FID with known real moments", "KID")[: len(works) // 2]:
        pair = (times[f"{name}, torch-fidelity"], times[f"{name}, crgan"])
        median, best, cpu = (pair[0][i] / pair[1][i] for i in range(3))
        print(
            f"{name}: torch-fidelity takes {median:.2f} times as long (the best round of each: "
            f"{best:.2f}; CPU seconds: {cpu:.2f})"
        )
    if args.json:
        write_json(args.json, {**record, "rows": rows}, indent=2)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb `distances`."""
    verb = verbs.add_parser("distances", help="the arithmetic of FID and KID")
    verb.set_defaults(run=run_distances)
    add = verb.add_argument
    add("--n", type=int, default=10_000, help="images on each side (10000)")
    add("--dims", type=int, default=2048, help="features (2048)")
    add("--batch-size", type=int, default=250, help="of crgan's moments (250)")
    add("--rounds", type=int, default=3, help="of which the median counts (3)")
    add("--threads", type=int, default=1, help="of PyTorch (1); set OMP_NUM_THREADS too")
    add("--kid", action="store_true", help="KID too, which takes minutes")
    add("--json", type=Path, metavar="FILE", help="also write all numbers to this file")
