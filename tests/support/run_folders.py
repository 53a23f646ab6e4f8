"""Run folders as `crgan train` leaves them, written and not trained."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

BASE: dict[str, object] = {
    "steps": 300,
    "batch_size": 16,
    "device": "auto",
    "out": None,
    "log.every": 100,
    "published.fid": None,
    "published.source": None,
    "dataset._target_": "crgan_cli.data.Demo",
    "dataset.resolution": 32,
    "architecture._target_.generator": "crgan_cli.networks.SNDCGANGenerator",
    "architecture._target_.discriminator": "crgan_cli.networks.SNDCGANDiscriminator",
    "architecture.resolution": 32,
    "metrics._target_": "crgan_cli.evaluation.Evaluator",
    "metrics.num_samples": 10000,
    "metrics.every": 100,
    "extractor._target_": "crgan_cli.evaluation.metrics.extractors.Inception",
    "regularizer._target_.cr": "crgan_cli.gan.ConsistencyRegularization",
    "regularizer.lambda_cr": 10.0,
    "regularizer.every": 1,
}

ICR: dict[str, object] = {
    "regularizer._target_.cr": None,
    "regularizer.lambda_cr": None,
    "regularizer._target_.bcr": "crgan_cli.gan.BalancedConsistency",
    "regularizer._target_.zcr": "crgan_cli.gan.LatentConsistency",
    "regularizer.lambda_real": 10.0,
    "regularizer.sigma": 0.03,
}
"""What regularizer=icr changes of BASE; None takes a key away."""

PROTOCOL: dict[str, object] = {
    "protocol": "demo_10k_test",
    "headline": "fid",
    "extractor": "inception",
    "extractor_sha256": "6726825d0af5f729",
    "dataset": "demo",
    "reference_split": "test",
    "num_real": 10000,
    "num_samples": 10000,
    "measures": {"is_splits": 10},
    "generator_weights": "raw",
}


def write_run(
    folder: Path,
    fids: Mapping[int, float],
    *,
    seed: int = 1,
    settings: Mapping[str, object] | None = None,
    status: str = "finished",
    more: Mapping[str, object] | None = None,
    others: Mapping[str, float] | None = None,
) -> Path:
    """A run with its FID at some steps, and `others` beside each.

    `settings` are dotted keys over BASE, `more` is added to result.json.
    """
    folder.mkdir(parents=True)
    config = BASE | {"seed": seed} | dict(settings or {})
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    (folder / "overrides.txt").write_text(f"crgan train seed={seed}\n")
    lines = [train_line(step) for step in (100, 200, 300)]
    lines += [
        {"kind": "eval", "step": step, "images_seen": 16 * step, "fid": fid, **(others or {})}
        for step, fid in fids.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result: dict[str, object] = {"status": status}
    if status == "finished":
        result |= {
            "step": 300,
            "seconds": 36.0,
            "seed": seed,
            "peak_memory_bytes": 1000,
            "provenance": {"crgan": "0.1.0", "device": "cpu (1 threads)"},
        }
        result |= {"protocol": PROTOCOL} if fids else {}
    (folder / "result.json").write_text(json.dumps(result | dict(more or {})))
    return folder


def train_line(step: int) -> dict[str, object]:
    return {
        "kind": "train",
        "step": step,
        "images_seen": 16 * step,
        "loss/d": 1 / step,
        "speed/images_per_second": float(step),
    }


def nested(flat: Mapping[str, object]) -> dict[str, object]:
    """Dotted keys -> a tree. A `None` of a regularizer takes the key away."""
    tree: dict = {}
    for dotted, value in flat.items():
        if value is None and dotted.startswith("regularizer."):
            continue
        *above, last = dotted.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return tree
