"""One training run from a checked configuration to its result, in a folder of its own."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import flatten
from crgan_cli.config.settings import Run
from crgan_cli.config.stored import difference, from_text, to_text
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import build_dataset, fingerprint
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.sampler import (
    EvalSampler,
    Sampler,
    class_per_row,
    grid_columns,
    sample_latents,
)
from crgan_cli.gan import build
from crgan_cli.runs import checkpoint
from crgan_cli.runs.folder import RunDir, new_folder, shell_quoted
from crgan_cli.runs.outcome import finished_result, primary_metric, recording_failure
from crgan_cli.runs.provenance import peak_memory, provenance
from crgan_cli.runs.record import Recorder, make_recorder, read_history
from crgan_cli.system.atomic import write_text
from crgan_cli.system.console import log_to_file, log_to_stderr
from crgan_cli.system.device import describe_device, resolve_device
from crgan_cli.system.distributed.errors import name_lost_peer
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.distributed.objects import (
    all_gather_objects,
    broadcast_from_main,
    on_every_rank,
    on_main,
)
from crgan_cli.system.distributed.setup import device_for_rank
from crgan_cli.system.distributed.tensors import broadcast_tensors
from crgan_cli.system.progress import EvalProgress, TrainingProgress, format_duration
from crgan_cli.training import costs, peaks
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.hooks import CheckpointManager, DrawSamples, Evaluate, Hook
from crgan_cli.training.trainer import StepCost, StopSignal, Trainer

log = logging.getLogger(__name__)
OUTPUTS = Path("outputs")


def train_job(
    config: DictConfig,
    overrides: Sequence[str],
    choices: Mapping[str, str | None],
    folder: Path | None,
) -> float | None:
    """Trains, or goes on training, and returns the headline metric; None without metrics.

    `folder` is a sweep's; a single run takes `out`, or a new folder under outputs/. Raises
    UserError, RunFailed or Interrupted, each with what to do next.
    """
    if config.out is not None:
        folder = Path(config.out)
    run = RunDir(folder or new_folder(OUTPUTS, choices.get("experiment"), choices))
    run.created_here, run.is_single_run = (
        config.out is None,
        folder is None or config.out is not None,
    )
    # a run that is gone on with by its folder was chosen when it began
    known = run.read_result().get("choices", {})
    run.extra_fields["choices"] = {group: name for group, name in choices.items() if name} or known
    with log_to_stderr(), run.lock():
        try:
            with log_to_file(run.log):
                return start_or_resume(config, overrides, run)
        finally:
            run.discard_if_empty()


def start_or_resume(config: DictConfig, overrides: Sequence[str], run: RunDir) -> float | None:
    """Makes the run's parts, or finds them where they were left, and trains."""
    resumed = broadcast_from_main(run.is_run)
    config.data_root = str(Path(config.data_root).absolute())  # to be found from any folder
    if config.dataset.get("root") is not None:
        config.dataset.root = str(Path(config.dataset.root).expanduser().absolute())
    if resumed:
        on_main(lambda: require_same(load_config(run), config, run))
    if (done := broadcast_from_main(lambda: finished_result(run, config.steps))) is not None:
        log.info("%s has all its %d steps", run.path, config.steps)
        return primary_metric(done)
    training = TrainingRun(config, run)
    if training.is_finished():
        return training.last_headline()
    if is_main():
        write_text(run.config, to_text(config))
        if not resumed:
            command = shlex.join(["crgan", "train", *overrides])
            write_text(run.overrides, command + "\n")
    run.write_result({"status": "running"})
    with recording_failure(run), name_lost_peer():
        return training.train()


def load_config(run: RunDir) -> DictConfig:
    """The configuration that a run was begun with."""
    return from_text(run.config.read_text("utf-8"), str(run.config))


def require_same(before: DictConfig, now: DictConfig, run: RunDir) -> None:
    """Raises UserError where a run would be gone on with in another way than it was begun."""
    if now.resume == "never":
        raise UserError(
            f"the folder {run.path} holds a run already, and resume=never. Choose another with "
            "out=FOLDER, or go on with resume=auto."
        )
    changed = difference(before, now)
    if before.steps != now.steps and before.optimizer.get("decay", "none") != "none":
        changed.append(f"steps: {before.steps} -> {now.steps} (optimizer.decay runs over them)")
    if changed and now.resume != "force":
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"the run in {run.path} was started with another configuration:{lines}\n"
            "Choose another folder with out=FOLDER, go on unchanged with "
            f"`crgan train --from {shell_quoted(run.path)}`, or insist with resume=force."
        )


def hparams(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that tell runs apart: what each group built, by class, and the values it got."""
    silent = (
        "out",
        "resume",
        "device",
        "data_root",
        "dataset.root",
        "log.",
        "samples.",
        "published.",
    )
    kept: dict[str, object] = {}
    for key, value in settings.items():
        group = key.partition("._target_")[0]
        if group != key:
            name = str(value).rpartition(".")[2] if value else "none"
            kept[group] = f"{kept[group]}+{name}" if group in kept else name
        elif not key.startswith((*silent, "checkpoint.")):
            kept[key] = value
    return kept


class TrainingRun:
    """All parts of a run. Making one checks all that can be checked before the first step."""

    def __init__(self, config: DictConfig, run: RunDir) -> None:
        self.config = config
        self.run = run
        self.settings = Run.from_config(config)
        self.device = device_for_rank(resolve_device(self.settings.device))
        self.evaluator = load.build_evaluator(config)
        self.dataset = build_dataset(config)
        images = on_every_rank(lambda: self.dataset.load("train"))
        self.provenance = provenance(fingerprint(images), self.device)
        if len(set(all_gather_objects(self.provenance["training_images_sha256"]))) > 1:
            raise UserError(
                "the processes of this run have different training images (their SHA-256 differ). "
                f"Put the same {self.dataset.title} into data_root={config.data_root} on every "
                "machine."
            )
        engine: Eager = build_group(config.engine)
        self.engine = engine.for_device(self.device)
        optimization = build_group(config.optimizer)
        players = build.build_networks(config)
        self.task = build.build_task(config, players)
        self.engine.prepare(self.task, self.device)
        broadcast_tensors([*self.task.parameters(), *self.task.buffers()])
        ema = self.settings.ema
        self.trainer = Trainer(
            self.task,
            self.engine,
            optimization,
            Batches(
                images,
                batch_size=self.settings.batch_size,
                seed=self.settings.seed,
                device=self.device,
                flip=self.dataset.flip,
                layout=self.engine.layout,
            ),
            ema=EMA(players.G, ema.decay, ema.start) if ema.decay is not None else None,
            seed=self.settings.seed,
            steps=self.settings.steps,
            log_every=self.settings.log.every,
            work=self.cost_of_step(),
        )
        self.found = self.find_checkpoint()
        if self.evaluator and self.evaluator.protocol.weights == "ema" and ema.decay is None:
            raise UserError(
                "metrics.weights=ema scores the averaged generator, and ema.decay=null keeps none: "
                "give a decay, as in ema.decay=0.9999, or metrics.weights=auto."
            )
        if self.evaluator:  # now, so that metrics that cannot be had are known at the start
            self.evaluator.to(self.device)
            with EvalProgress() as scoring:
                self.evaluator.prepare(self.dataset, progress=scoring.show)
            averaged = ema.decay is not None and self.evaluator.protocol.weights != "raw"
            run.extra_fields["protocol"] = {
                **self.evaluator.describe(),
                "generator_weights": "ema" if averaged else "raw",
            }

    def cost_of_step(self) -> StepCost | None:
        """What a step is worth in FLOP; None for networks that cannot be counted."""
        flop = costs.flops_per_step(self.config)
        if flop is None:
            return None
        precision = self.engine.precision
        peak = peaks.peak(self.device, precision)
        name = (
            "this CPU's matrix products"
            if self.device.type == "cpu"
            else describe_device(self.device)
        )
        of = f"the {peak / 1e12:.3g} of {name} in {precision}" if peak else ""
        return StepCost(flop, peak, of)

    def find_checkpoint(self) -> checkpoint.LoadedCheckpoint | None:
        """The checkpoint to go on from. Raises UserError where its images were others."""
        found = broadcast_from_main(lambda: checkpoint.load_latest(self.run.checkpoints))
        if found is None:
            return None
        key = "training_images_sha256"
        if found.content["provenance"][key] != self.provenance[key]:
            raise UserError(
                f"{found.path} was trained on other images than {self.dataset.title} holds now "
                f"(their SHA-256 differ). Restore the data set, or start anew with out=FOLDER."
            )
        return found

    def is_finished(self) -> bool:
        """Whether nothing is left to do. Raises UserError where more is done than is asked for."""
        if self.found is None:
            return False
        done, steps = self.found.content["step"], self.settings.steps
        longer = f"crgan train --from {shell_quoted(self.run.path)} steps={2 * done}"
        if done > steps:
            raise UserError(
                f"the run in {self.run.path} has {done} steps already, and steps={steps}. To train "
                f"it longer: {longer}"
            )
        if done < steps or not self.found.content["settled"]:
            return False
        log.info("%s has all its %d steps; to train it longer: %s", self.run.path, steps, longer)
        return True

    def last_headline(self) -> float | None:
        """The headline metric of the checkpoint that was found."""
        if self.found is None or self.evaluator is None:
            return None
        return self.found.content["states"]["evaluate"]["last"].get(self.evaluator.headline)

    def train(self) -> float | None:
        """Trains to the end, and says what came of it."""
        step, settled = 0, True
        if self.found:
            step, settled = self.found.content["step"], self.found.content["settled"]
        watch = TrainingProgress(self.settings.steps, step=step)
        recorder = make_recorder(self.run, step=step, settled=settled)
        stop = StopSignal()
        try:
            with stop.handling_signals(), watch:
                hooks, keeper = self.hooks(recorder, watch)
                if self.found:
                    keeper.load(self.trainer, self.found)
                self.trainer.begin()
                self.log_plan(recorder, keeper)
                self.found = None  # its tensors are as large as the run's own
                self.trainer.fit(recorder, hooks, keeper, watch, stop)
                recorder.finish()
        finally:
            recorder.close()
        return self.finish(keeper)

    def hooks(
        self, recorder: Recorder, watch: TrainingProgress
    ) -> tuple[list[Hook], CheckpointManager]:
        """What is done every N steps."""
        settings, G = self.settings, self.trainer.G
        prior = build.build_prior(self.config, G)
        num = settings.samples.num
        columns = grid_columns(num)
        labels = class_per_row(num, columns, prior.classes)
        shown = Sampler(sample_latents(prior, num, settings.seed, labels=labels), self.device)
        hooks: list[Hook] = [
            DrawSamples(settings.samples.every, shown, num, columns, self.run, recorder)
        ]
        evaluate = None
        if self.evaluator:
            scored = EvalSampler(self.evaluator.protocol, prior, settings.seed, self.device)
            evaluate = Evaluate(self.evaluator, scored, recorder, watch)
            hooks.append(evaluate)
        keeper = CheckpointManager(
            self.run,
            every=settings.checkpoint.every,
            keep=settings.checkpoint.keep,
            config=to_text(self.config),
            provenance=self.provenance,
            evaluate=evaluate,
        )
        return hooks, keeper

    def log_plan(self, recorder: Recorder, keeper: CheckpointManager) -> None:
        """Says what will be done, in the log and in TensorBoard."""
        log.info("run folder %s", self.run.path)
        log.info("device %s, engine %s", describe_device(self.device), self.engine.describe())
        if self.device.type == "cpu" and self.config.architecture.get("width") == 1.0:
            log.info(
                "on a CPU, architecture.width=0.25 is some ten times faster than the whole net"
            )
        for line in self.task.describe_turns():
            log.info("%s", line)
        if work := self.trainer.step_cost:
            log.info(
                "a step is %.3g TFLOP, with the networks as they are written", work.flops / 1e12
            )
        if keeper.evaluate:
            evaluator = keeper.evaluate.evaluator
            log.info(
                "metrics %s every %d steps by the protocol %s, extractor %s (SHA-256 %.8s)",
                evaluator.headline,
                keeper.evaluate.every,
                evaluator.label,
                evaluator.extractor.name,
                evaluator.extractor.sha256,
            )
        if self.found:
            log.info("going on from %s, step %d", self.found.path, self.trainer.step)
        recorder.text("config", to_text(self.config))
        tag = None
        if keeper.evaluate:
            tag = keeper.evaluate.evaluator.tag(keeper.evaluate.evaluator.headline)
        recorder.hparams(hparams(flatten(self.config)), tag)

    def finish(self, keeper: CheckpointManager) -> float | None:
        """result.json, and the last words; gives the headline metric."""
        evaluate = keeper.evaluate
        run, step = self.run, self.trainer.step
        result: dict[str, object] = {
            "status": "finished",
            "step": step,
            "images_seen": self.trainer.images_seen,
            "seconds": round(self.trainer.seconds, 1),
            "seed": self.settings.seed,
            "peak_memory_bytes": peak_memory(self.device),
            "engine": self.engine.describe(),
            "provenance": self.provenance,
        }
        if evaluate:
            result |= {"last": evaluate.last, "best": evaluate.best}
        run.write_result(result)
        if run.is_single_run and is_main():  # a sweep ends with a table
            self.print_summary(evaluate)
        return evaluate.last[evaluate.evaluator.headline] if evaluate else None

    def print_summary(self, evaluate: Evaluate | None) -> None:
        """What came of the run, on stdout."""
        run, step = self.run, self.trainer.step
        print(f"finished {step} steps in {format_duration(self.trainer.seconds)}")
        print(f"  samples      {run.samples / f'step_{step:08d}.png'}")
        print(f"  tensorboard  tensorboard --logdir {shell_quoted(run.tensorboard)}")
        print(f"  checkpoint   {checkpoint.list_checkpoints(run.checkpoints)[0]}")
        if evaluate is None:
            return
        name = evaluate.evaluator.headline
        for key, value in evaluate.last.items():
            if key != "step":
                print(f"  {key:12s} {value:.4f}")
        print(f"  best {name} {evaluate.best[name]:.4f} at step {evaluate.best['step']:.0f}")
        curve = [f"{line[name]:.1f}" for line in read_history(run) if line["kind"] == "eval"]
        print(f"  {name} over the run: {' '.join(curve)}")
