"""Find checkpoints of runs, and load networks from them."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from crgan_cli.config.build import build_group, import_class
from crgan_cli.config.resolve import flatten, format_typed
from crgan_cli.config.stored import from_text, read_stored
from crgan_cli.errors import UserError
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.extractors import Unread
from crgan_cli.gan.build import build_networks, build_prior, get_task_class
from crgan_cli.gan.stages import describe_side
from crgan_cli.gan.tasks.base import StoredValues, Task
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.networks.growth import Growth
from crgan_cli.runs.checkpoint import (
    Content,
    LoadedCheckpoint,
    Stateful,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    restore,
)
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.metric_names import TRAITS
from crgan_cli.runs.next_commands import suggest_metrics

log = logging.getLogger(__name__)

BUILT = ("architecture", "engine", "task")
"""The groups that a network is built from: the engine chooses its memory format."""

MODE_VALUES: StoredValues = {
    "metrics.batch_norm": lambda value: value in ("batch", "running"),
    "metrics.dropout": lambda value: value in ("on", "off"),
}
"""What else a network that translates depends on, besides `Task.stored_values`. Only these are read
of their groups: neither the data nor the extractor need be there."""


def build_evaluator(config: DictConfig, *, unread: bool = False) -> Evaluator | None:
    """Build the metrics with their feature extractor, and the user's own measures.

    `unread`: without the extractor's weights, to check settings only. Return None for metrics=none.
    Raises UserError for a measure that is none, or has no place.
    """
    own = build_own_measures(config.measure)
    if not config.metrics._target_:
        if own:
            raise UserError(
                f"measure={','.join(own)} is measured with the metrics, and metrics=none has none. "
                f"Type {suggest_metrics(flatten(config))[0]}, or leave measure out."
            )
        return None
    if unread:
        extractor = Unread(import_class(config.extractor._target_))
    else:
        extractor = build_group(config.extractor)
    return build_group(config.metrics, extractor=extractor, **({"own": own} if own else {}))


def build_own_measures(settings: DictConfig) -> dict[str, Metric]:
    """Build the measures of `conf/measure`, by name. Raises UserError for another class."""
    measures = build_group(settings)
    assert isinstance(measures, dict), "config/schema.py asks for names"
    for name, measure in measures.items():
        if not isinstance(measure, Metric):
            raise UserError(
                f"measure={name}: {type(measure).__name__} is no crgan_cli.evaluation.Metric. "
                "docs/extending.md shows one."
            )
        others = [other.key for other in measures.values() if other is not measure]
        if measure.key in (*TRAITS, *others):
            raise UserError(
                f"measure={name}: another metric is called {measure.key}. Give the class another "
                "key."
            )
    return measures


def find_run(path: Path) -> RunDir | None:
    """Return the run that a checkpoint file is part of. None if it lies elsewhere."""
    folder = path.absolute().parent
    run = RunDir(folder.parent)
    return run if run.checkpoints == folder and run.is_run() else None


def find_checkpoint(path: Path, *, best: bool = False) -> LoadedCheckpoint:
    """Load a checkpoint from its file or its run's folder. Raise UserError if there is none."""
    if not path.is_dir():
        if best:
            raise UserError(
                f"--best asks for the best checkpoint of a run, and {path} is not a run's folder. "
                "Give the folder, or leave out --best."
            )
        return keep_networks(load_checkpoint(path))
    run = RunDir(path)
    if best:
        if not run.best.exists():
            raise UserError(
                f"{path} holds no best checkpoint ({run.best}): no checkpoint of it had the best "
                "metrics yet, or it has no metrics. Leave out --best for its newest."
            )
        return keep_networks(load_checkpoint(run.best))
    newest = load_latest(run.checkpoints)
    if newest is None:
        raise UserError(
            f"{path} holds no checkpoint that can be read (looked for checkpoints/step_*.pt). Give "
            "the folder of a run, as crgan train printed it, or a checkpoint file."
        )
    return keep_networks(newest)


def keep_networks(checkpoint: LoadedCheckpoint) -> LoadedCheckpoint:
    """Drop what only training needs: the optimizers are more than half of a checkpoint."""
    states = checkpoint.content["states"]
    for name in states.keys() - {"task", "ema"}:
        del states[name]
    return checkpoint


def all_checkpoints(path: Path) -> list[Path]:
    """Return the files of all numbered checkpoints of a run, by step. Raise UserError if none."""
    paths = list_checkpoints(RunDir(path).checkpoints)
    if not paths:
        raise UserError(
            f"--all asks for the checkpoints of a run, and {path} holds none. Give the folder of a "
            "run, as crgan train printed it."
        )
    return paths[::-1]


class LoadedGenerator(NamedTuple):
    """A generator from a checkpoint, ready to draw images."""

    G: nn.Module
    config: DictConfig
    step: int
    weights: str  # "ema" or "raw"
    path: Path
    class_names: tuple[str, ...] = ()  # of the data set; () if it has none, or they are not known

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config.seed)

    @property
    def task(self) -> type[Task]:
        """What G is for."""
        return get_task_class(self.config)

    @property
    def prior(self) -> Prior:
        """The prior of the latents. Raise UserError if G translates images."""
        if not self.task.has_latents:
            raise UserError(
                f"{self.path} is of the task {self.task.__name__}: its generator translates images "
                "and has no latents to draw from. Type crgan translate RUN INPUT --out OUT, or in "
                "Python model.translate(images)"
            )
        return build_prior(self.config, self.G)

    @property
    def side(self) -> str:
        """What a generator that has not grown up works at, as `describe_side` says it; else ""."""
        growth = getattr(self.G, "growth", None)
        if not isinstance(growth, Growth):
            return ""
        full = int(self.config.architecture.resolution)
        return describe_side(growth.find_side(growth.level, full), full, float(growth.alpha))


def read_network_config(checkpoint: LoadedCheckpoint) -> DictConfig:
    """Read the parts of a checkpoint's configuration that its networks are built from."""
    text, source = checkpoint.content["config"], str(checkpoint.path)
    config, stored = from_text(text, source, builds=BUILT), flatten(read_stored(text, source))
    if values := get_task_class(config).stored_values:
        for key, value in select_values(stored, {**values, **MODE_VALUES}, source):
            OmegaConf.update(config, key, value, force_add=True)
    return config


def select_values(
    stored: Mapping[str, object], wanted: StoredValues, source: str
) -> Iterator[tuple[str, object]]:
    """Yield the keys and values that are wanted. Raise UserError for a value that is none."""
    for pattern, is_valid in wanted.items():
        known = re.compile(re.escape(pattern).replace(r"\*", "[^.]+"))
        for key in filter(known.fullmatch, stored):
            if not is_valid(stored[key]):
                raise UserError(
                    f"{source} is damaged: {key} cannot be {format_typed(stored[key])}."
                )
            yield key, stored[key]


def load_generator(
    checkpoint: LoadedCheckpoint, device: torch.device, weights: str | None
) -> LoadedGenerator:
    """Load the generator of a checkpoint: "ema" or "raw" weights; None takes the EMA if any."""
    path, content, _ = checkpoint
    config = read_network_config(checkpoint)
    weights = weights or ("ema" if "ema" in content["states"] else "raw")
    if weights == "ema" and "ema" not in content["states"]:
        raise UserError(
            f"{path} holds no averaged generator: it was trained with ema.decay=null. "
            "Ask for --weights raw."
        )
    part, prefix = ("ema", "") if weights == "ema" else ("task", "G.")
    G = load_network(build_networks(config).G, checkpoint, config, device, part, prefix)
    names = tuple(map(str, content.get("class_names", ())))
    model = LoadedGenerator(G, config, content["step"], weights, path, names)
    if model.side:
        log.info(
            "the networks of %s have not grown up: they work at %s. Smaller images are doubled",
            path.name,
            model.side,
        )
    return model


def load_discriminator(checkpoint: LoadedCheckpoint, device: torch.device) -> nn.Module:
    """Load the discriminator of a checkpoint, in evaluation mode: its spectral norms are fixed.

    Of a task with several, an nn.ModuleDict.
    """
    config = read_network_config(checkpoint)
    D = build_networks(config).D
    several = isinstance(D, nn.ModuleDict)
    prefixes = {f"adversaries.{name}.D.": each for name, each in D.items()} if several else {}
    for prefix, each in prefixes.items() or [("adversary.D.", D)]:
        load_network(each, checkpoint, config, device, "task", prefix)
    return D


def load_network(
    network: nn.Module,
    checkpoint: LoadedCheckpoint,
    config: DictConfig,
    device: torch.device,
    part: str,
    prefix: str,
) -> nn.Module:
    """Load the entries under `prefix` of the state `part` into a network, and freeze it."""
    state = checkpoint.content["states"].get(part, {})
    own = {key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)}
    content: Content = {**checkpoint.content, "states": {"network": own}}
    restore(content, {"network": cast(Stateful, network)}, checkpoint.path)
    # the layout of training: another one rounds differently, and metrics would differ from the log
    layout = build_group(config.engine).layout
    network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
