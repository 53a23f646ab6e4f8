"""`crgan train --dry-run`: what a run would be and cost. Nothing is written and nothing downloaded.

Networks, regularizer and stages are built and checked as at the start of a run, but without values.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from errno import EACCES, ENOTDIR
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from crgan_cli.config.build import build_group
from crgan_cli.config.settings import Run
from crgan_cli.config.sides import Sides
from crgan_cli.config.stored import make_paths_absolute
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.images import format_shape
from crgan_cli.evaluation import load
from crgan_cli.gan.build import build_networks, build_task, get_task_class
from crgan_cli.gan.stages import Stages
from crgan_cli.networks.growth import Growth
from crgan_cli.report.tables import Column, align_cells
from crgan_cli.runs.folder import OUTPUTS, RunDir, cannot_create
from crgan_cli.system.device import describe_device, resolve_device
from crgan_cli.system.distributed.world import world
from crgan_cli.system.meta import without_values
from crgan_cli.system.numbers import format_bytes, format_flop, format_time
from crgan_cli.training import costs, peaks
from crgan_cli.training.build import build_loggers
from crgan_cli.training.engine.accumulate import require_parts
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.layers import Layer, LayerTable, make_inputs, tabulate
from crgan_cli.training.optimizers import Optimization
from crgan_cli.training.requirements import (
    build_sampler,
    count_state_bytes,
    require_enough_memory,
    require_images,
    require_metrics,
    require_possible_end,
)
from crgan_cli.training.warm_start import WarmStart, freeze_layers

UNCHECKED = """\
Not looked at: what is in the files of the data set, and the weights of the extractor. Nothing was
written or downloaded."""


class Checked(NamedTuple):
    """What a run is made of, as far as that needs no values."""

    config: DictConfig
    device: torch.device
    engine: Eager
    optimization: Optimization
    stages: Stages
    turns: list[str]  # what each player's turn computes


def describe_plan(config: DictConfig) -> str:
    """Return what a run would be and cost, as text. Raises UserError for what cannot be trained."""
    checked = check(config)
    tables = tabulate_players(config)
    names: dict[LayerTable, list[str]] = {}
    for name, table in tables.items():  # the two of a CycleGAN are alike
        names.setdefault(table, []).append(name)
    blocks = [format_table(" and ".join(titles), table) for table, titles in names.items()]
    totals = "\n".join(f"  {name:12}{text}" for name, text in list_costs(checked, tables))
    return "\n\n".join([*blocks, totals, UNCHECKED])


def check(config: DictConfig) -> Checked:
    """Build and check what a run checks before it looks at images and weights."""
    settings = Run.from_config(config)
    build_loggers(config)
    device = resolve_device(settings.device)
    stages = Stages.from_settings(config)
    optimization: Optimization = build_group(config.optimizer)
    require_possible_end(config, optimization)
    require_enough_memory(config, stages, device, optimization.moments)
    engine = build_group(config.engine).for_device(device, settings.accumulate)
    warm = None if is_saved(config) else WarmStart.from_settings(settings)
    if warm:  # with values: spectral norm has none to work with otherwise, and changes names
        task = build_task(config, build_networks(config))
        warm.take_networks(task)
    else:
        with without_values():
            task = build_task(config, build_networks(without_spectral_norm(config)))
    freeze_layers(task, settings.freeze_d, warm)
    sizes = [stage.batch_size for stage in stages]
    require_parts(task, settings.accumulate, sizes, world().world_size)
    dataset = build_dataset(config)
    require_images(config, task, dataset, stages)
    build_sampler(config, dataset)
    if evaluator := load.build_evaluator(config, unread=True):
        require_metrics(config, evaluator, task, dataset)
    return Checked(config, device, engine, optimization, stages, task.describe_turns())


def is_saved(config: DictConfig) -> bool:
    """Whether the run has a checkpoint to resume from: it no longer needs `init_from`."""
    run = RunDir(Path(config.out)) if config.out is not None else None
    return run is not None and run.is_run() and bool(run.list_checkpoints() or run.best.exists())


def without_spectral_norm(config: DictConfig) -> DictConfig:
    """Return the same networks without it: it has no parameters, and takes most of the time."""
    if "spectral_norm" not in config.architecture:
        return config
    plain = deepcopy(config)
    OmegaConf.update(plain, "architecture.spectral_norm", False)
    return plain


def tabulate_players(config: DictConfig, sides: Sides | None = None) -> dict[str, LayerTable]:
    """Return the layers of each network, "G", "D", or "G ab" of several: fully grown, or as far as
    they are at images of these `sides`."""
    full, channels = Sides.read(config.dataset.resolution), int(config.dataset.channels)
    sides = sides or full
    casting = get_task_class(config).casting(config)
    found = {}
    with without_values():
        players = build_networks(without_spectral_norm(config))
        if isinstance(growth := getattr(players.G, "growth", None), Growth):
            growth.follow(growth.find_level(sides.height, full.height), 1.0)
        for who, player in zip(("g", "d"), players, strict=True):
            for name, part in casting[who].items():
                network = player[name] if isinstance(player, nn.ModuleDict) else player
                title = f"{who.upper()} {name}".strip()
                inputs = make_inputs(network, part, channels, sides)
                found[title] = tabulate(network, inputs)
    return found


def format_table(name: str, table: LayerTable) -> str:
    """Return the layers of a network, without those that neither hold, compute nor reshape."""
    layers = list(choose_layers(table.layers))
    columns = [
        Column(name, False, [f"{layer.name} ({layer.kind})" for layer in layers]),
        Column("output", True, [format_shape(layer.shape) or "-" for layer in layers]),
        Column("parameters", True, [f"{layer.parameters:,}" for layer in layers]),
        Column("an image", True, [format_work(layer.flops) for layer in layers]),
    ]
    whole = "-" if table.flops is None else format_work(table.flops)
    last = ("all", "", f"{table.parameters:,}", whole)
    columns = [
        column._replace(cells=[*column.cells, cell])
        for column, cell in zip(columns, last, strict=True)
    ]
    return "\n".join("  ".join(line).rstrip() for line in align_cells(columns))


def choose_layers(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yield the layers that have parameters or FLOP, or change the shape."""
    shape: tuple[int, ...] = ()
    for layer in layers:
        if layer.parameters or layer.flops or layer.shape != shape:
            yield layer
        shape = layer.shape


def format_work(flops: float) -> str:
    """Return FLOP with their unit; - for none."""
    return format_flop(flops) if flops else "-"


def list_costs(run: Checked, tables: Mapping[str, LayerTable]) -> Iterator[tuple[str, str]]:
    """Yield what the whole run is and costs, as name and text."""
    config, stages, steps = run.config, run.stages, int(run.config.steps)
    yield "folder", describe_folder(config)
    yield "device", f"{describe_device(run.device)}, engine {run.engine.describe()}"
    yield from (("turns", line) for line in run.turns)
    for stage, first, end in stages.between(0, steps):
        when = f"{stage.sides} px, steps {first} to {end}: " if len(stages) > 1 else ""
        flop = costs.estimate_step_flops(config, stage)
        known = "not counted for this task" if flop is None else format_flop(flop)
        yield "a step", f"{when}batch of {stage.batch_size}, {known}"
    yield "all", f"{steps:,} steps, {stages.images(steps):,} real images seen, repeats counted"
    yield "parameters", f"{sum(table.parameters for table in tables.values()):,}"
    yield "memory", describe_memory(run, tables)
    yield "disk", f"{format_bytes(costs.disk_bytes(config))} of checkpoints at most"
    yield "time", describe_time(run)


def describe_folder(config: DictConfig) -> str:
    """Say where the run would be. Raises UserError if a run with other settings is there."""
    require_writable(Path(config.out or OUTPUTS))
    if config.out is None:
        return f"a new one below {OUTPUTS}/"
    run = RunDir(Path(config.out))
    if not run.is_run():
        return str(run.path)
    from crgan_cli.training.start import load_config, require_same  # brings TensorBoard

    now = deepcopy(config)
    make_paths_absolute(now)
    require_same(load_config(run), now, run)
    run.require_steps(config.steps)
    return f"{run.path}, which holds this run: it would be resumed"


def require_writable(folder: Path) -> None:
    """Raise UserError for a folder that can be neither written nor made. Nothing is written."""
    above = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not above.is_dir():
        raise cannot_create(folder, NotADirectoryError(ENOTDIR, f"{above} is no folder"))
    if not os.access(above, os.W_OK | os.X_OK):
        raise cannot_create(folder, PermissionError(EACCES, f"{above} cannot be written"))


def describe_memory(run: Checked, tables: Mapping[str, LayerTable]) -> str:
    """Return the least that a run needs, part by part. `tables` are those of the last stage."""
    config, most = run.config, 0
    parts = count_state_bytes(config, run.device, run.optimization.moments)
    if all(table.flops is not None for table in tables.values()):
        for stage, _, _ in run.stages.between(0, int(config.steps)):
            grown = stage.sides == run.stages.stages[-1].sides
            there = tables if grown else tabulate_players(config, stage.sides)
            batch = stage.batch_size // world().world_size // int(config.accumulate)
            most = max(most, batch * sum(table.activations for table in there.values()))
        parts["the activations of one pass of each network, in fp32"] = most
    named = ", ".join(f"{format_bytes(size)} for {name}" for name, size in parts.items())
    return f"at least {format_bytes(sum(parts.values()))}: {named}; without convolutions' workspace"


def describe_time(run: Checked) -> str:
    """Say what is known of the time before anything is measured: no more than bounds and models."""
    config, steps = run.config, int(run.config.steps)
    parts = [
        (end - first, costs.estimate_step_flops(config, stage))
        for stage, first, end in run.stages.between(0, steps)
    ]
    flops = [count * flop for count, flop in parts if flop is not None]
    if len(flops) < len(parts):
        return "not known before it runs"
    minutes = costs.gpu_minutes(config, steps)
    model = "" if minutes is None else f"; {format_time(60 * minutes)} on one H200 [derived: "
    model += "performance model, not measured]" if model else ""
    peak = peaks.peak(run.device, run.engine.precision)
    work = format_flop(sum(flops))
    if peak is None:
        return f"not known before it runs: {work}{model}"
    return (
        f"not known before it runs: {work} are {format_time(sum(flops) / peak)} at the "
        f"{format_flop(peak)}/s of this device's matrix products, which no run reaches{model}"
    )
