"""The parts of a training run, built and checked before the first step."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from omegaconf import DictConfig

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import format_setting
from crgan_cli.config.settings import Run
from crgan_cli.config.stored import to_text
from crgan_cli.data.batches import TrainingImages, make_batches
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.images import Images, fingerprint_sets
from crgan_cli.data.levels import shrink_images
from crgan_cli.data.samplers import require_repeatable
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.drawing import (
    get_draws,
    get_labels,
    make_eval_sampler,
    make_painter,
)
from crgan_cli.gan import build
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.loggers.base import Logger
from crgan_cli.runs.protocol import describe_generator
from crgan_cli.runs.provenance import collect_provenance
from crgan_cli.runs.record import Recorder
from crgan_cli.system.device import resolve_device, watch_crowding
from crgan_cli.system.distributed.objects import all_gather_objects, on_every_rank
from crgan_cli.system.distributed.setup import device_for_rank
from crgan_cli.system.distributed.tensors import broadcast_tensors
from crgan_cli.system.distributed.world import world
from crgan_cli.system.progress import EvalProgress, TrainingProgress
from crgan_cli.training.early_stop import EarlyStop
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.accumulate import require_parts
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.hooks import CheckpointManager, DrawSamples, Evaluate, Hook
from crgan_cli.training.optimizers import Optimization
from crgan_cli.training.requirements import (
    build_sampler,
    require_batches,
    require_enough_memory,
    require_images,
    require_metrics,
    require_possible_end,
)
from crgan_cli.training.step_cost import count_step_cost
from crgan_cli.training.trainer import Trainer
from crgan_cli.training.warm_start import WarmStart, freeze_layers

log = logging.getLogger(__name__)


def build_loggers(config: DictConfig) -> dict[str, Logger]:
    """Return name -> logger. Raises UserError if a package of one is not installed."""
    built = build_group(config.logger)
    loggers = built if isinstance(built, dict) else {type(built).__name__: built}
    for name, logger in loggers.items():
        if not isinstance(logger, Logger):
            raise UserError(
                f"logger {name} must be a crgan_cli.runs.loggers.base.Logger, not "
                f"{format_setting(type(logger).__name__)}. docs/logging.md shows one."
            )
        logger.require_package()
    return loggers


class TrainingRun:
    """All parts of a run. The constructor checks all that can be checked before the first step."""

    def __init__(
        self, config: DictConfig, run: RunDir, found: LoadedCheckpoint | None, command: str
    ) -> None:
        """`command` is what was typed."""
        self.config = config
        self.config_text = to_text(config)
        self.run = run
        self.settings = Run.from_config(config)
        ema = self.settings.ema
        self.device = device_for_rank(resolve_device(self.settings.device))
        self.crowd = watch_crowding(self.device, command)

        self.loggers = build_loggers(config)

        stages = Stages.from_settings(config)  # first: a mistake in it is said at once
        optimization: Optimization = build_group(config.optimizer)
        require_possible_end(config, optimization)
        require_enough_memory(config, stages, self.device, optimization.moments)

        # Networks, on the device and equal on all ranks. Before the data: what is wrong with them
        # is said before images are decoded or downloaded.
        engine: Eager = build_group(config.engine)
        self.engine = engine.for_device(self.device, self.settings.accumulate)
        players = build.build_networks(config)
        self.task = build.build_task(config, players)
        warm = WarmStart.from_settings(self.settings) if found is None else None
        if warm:
            warm.take_networks(self.task)
        freeze_layers(self.task, self.settings.freeze_d, warm)
        self.engine.prepare(self.task, self.device)
        broadcast_tensors([*self.task.parameters(), *self.task.buffers()])
        batch_sizes = [stage.batch_size for stage in stages]
        require_parts(self.task, self.settings.accumulate, batch_sizes, world().world_size)

        # Data. Every rank must have the images of the others, and of the checkpoint.
        names = found.content.get("class_names", ()) if found else ()
        self.dataset = build_dataset(config, names)
        on_every_rank(lambda: require_images(config, self.task, self.dataset, stages))
        self.sampler = build_sampler(config, self.dataset)
        self.evaluator = load.build_evaluator(config)
        if self.evaluator:
            require_metrics(config, self.evaluator, self.task, self.dataset, names)
        sets = on_every_rank(lambda: self.dataset.load_sets("train"))
        self.image_count = sum(len(images.x) for images in sets.values())
        self.provenance = collect_provenance(fingerprint_sets(sets), self.device)
        if warm:
            self.provenance["init_from"] = warm.describe()
        elif found and "init_from" in found.content["provenance"]:
            self.provenance["init_from"] = found.content["provenance"]["init_from"]
        run.extra_fields["provenance"] = self.provenance  # of every result, also of a killed run
        self.require_same_images(found)

        self.trainer = Trainer(
            self.task,
            self.engine,
            optimization,
            self.prepare_batches(sets, stages),
            stages,
            ema=EMA(players.G, ema.decay, ema.start) if ema.decay is not None else None,
            seed=self.settings.seed,
            steps=self.settings.steps,
            log_every=self.settings.log.every,
            count_cost=partial(count_step_cost, config, self.engine.precision, self.device),
        )
        if warm:
            warm.take_average(self.trainer.ema)

        # Metrics, now, so that those that are not available fail at the start.
        names = self.dataset.class_names
        self.draws = get_draws(config, names)
        if self.evaluator:
            self.evaluator.to(self.device)
            with EvalProgress(self.crowd, "preparing metrics") as progress:
                labels = get_labels(config, self.draws, names)
                self.evaluator.prepare_draws(
                    self.dataset, self.draws, labels, progress=progress.show
                )
            averaged = ema.decay is not None and self.evaluator.protocol.weights != "raw"
            side = stages.describe_growth(self.settings.steps)  # at the last evaluation
            run.extra_fields["protocol"] = {
                **self.evaluator.describe(),
                **describe_generator("ema" if averaged else "raw", side),
            }

    def prepare_batches(
        self, sets: Mapping[str, Images], stages: Stages
    ) -> Callable[[Stage], TrainingImages]:
        """Return what makes the batches of real images of a stage, in an order of its own.

        Raise UserError for a batch size of any stage that the images or D do not allow, and for a
        sampler that is not for these images.
        """
        sizes = {name: self.dataset.set_sizes(images) for name, images in sets.items()}
        require_batches(self.config, stages, sizes)
        self.try_sampler(sets, sizes)
        numbers = {stage: number for number, stage in enumerate(stages)}

        def shrink(images: Images, stage: Stage) -> Images:
            if len(stages) == 1:
                return images  # which may be larger than the squares that are cut out
            digest = self.provenance["training_images_sha256"]
            return shrink_images(images, stage.resolution, digest)

        return lambda stage: make_batches(
            {name: shrink(images, stage) for name, images in sets.items()},
            sizes,
            batch_size=stage.batch_size,
            seed=self.settings.seed,
            device=self.device,
            flip=self.dataset.flip,
            crop=stage.resolution if stage.sides.is_square else None,
            layout=self.engine.layout,
            stream=numbers[stage],
            sampler=self.sampler,
            blocks=self.dataset.block_shuffle,
            limit=self.engine.image_limit,
        )

    def try_sampler(self, sets: Mapping[str, Images], sizes: Mapping[str, Sequence[int]]) -> None:
        """Log what the sampler does to each set, and part of one. Raise UserError for no order."""
        if self.dataset.block_shuffle is not None:
            return
        for name, images in sets.items():
            for part in images.y.split(list(sizes[name])):
                require_repeatable(self.sampler, part)
                if said := self.sampler.describe(part):
                    which = f" of {name}" if len(sets) > 1 else ""
                    log.info("sampler %s%s: %s", type(self.sampler).__name__, which, said)

    def require_same_images(self, found: LoadedCheckpoint | None) -> None:
        """Raise UserError if the ranks or the checkpoint have other training images."""
        key = "training_images_sha256"
        if len(set(all_gather_objects(self.provenance[key]))) > 1:
            raise UserError(
                "the processes of this run have different training images (their SHA-256 differ). "
                f"Put the same {self.dataset.title} into data_root={self.config.data_root} on "
                "every machine."
            )
        if found and found.content["provenance"][key] != self.provenance[key]:
            raise UserError(
                f"{found.path} was trained on other images than {self.dataset.title} has now "
                "(their SHA-256 differ). Restore the data set, or start a new run with out=FOLDER."
            )

    def build_hooks(
        self, recorder: Recorder, progress: TrainingProgress
    ) -> tuple[list[Hook], CheckpointManager]:
        """Build what runs every N steps."""
        settings, seed, device = self.settings, self.settings.seed, self.device
        draws = self.draws
        protocol = self.evaluator.protocol if self.evaluator else None

        def make_prior() -> Prior:
            return build.build_prior(self.config, self.trainer.G)

        # Grids of samples.
        num = settings.samples.num
        paint = make_painter(draws, self.dataset, protocol, make_prior, num, seed, device)
        hooks: list[Hook] = [DrawSamples(settings.samples.every, paint, self.run, recorder)]

        # Metrics.
        evaluate = None
        if self.evaluator:
            scored = make_eval_sampler(
                draws, self.dataset, self.evaluator, make_prior, seed, device
            )
            early = settings.early_stop
            first = self.trainer.stages.grown_at
            early_stop = EarlyStop(early.patience, early.min_delta, first)
            evaluate = Evaluate(self.evaluator, scored, recorder, progress, early_stop)
            hooks.append(evaluate)

        checkpoints = CheckpointManager(
            self.run,
            every=settings.checkpoint.every,
            keep=settings.checkpoint.keep,
            config=self.config_text,
            provenance=self.provenance,
            class_names=self.dataset.class_names,
            evaluate=evaluate,
        )
        return hooks, checkpoints
