"""One training run from a checked configuration to its result, in a folder of its own."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import flat
from crgan_cli.config.settings import Run
from crgan_cli.config.stored import difference, from_text, to_text
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import dataset_of, fingerprint
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.sampler import Sampler, Scored, labels_by_row, random_codes, square
from crgan_cli.gan import build
from crgan_cli.runs import checkpoint
from crgan_cli.runs.folder import RunDir, new_folder, quoted
from crgan_cli.runs.outcome import finished, headline_in, reported
from crgan_cli.runs.provenance import peak_memory, provenance
from crgan_cli.runs.record import Recorder, history, recorder_of
from crgan_cli.system.atomic import write_text
from crgan_cli.system.console import logging_to, speaking
from crgan_cli.system.device import describe, device_of
from crgan_cli.system.distributed.errors import lost_named
from crgan_cli.system.distributed.launch import first
from crgan_cli.system.distributed.objects import by_all, by_first, everyones, from_first
from crgan_cli.system.distributed.setup import own_device
from crgan_cli.system.distributed.tensors import spread
from crgan_cli.system.progress import Scoring, Watch, duration
from crgan_cli.training import costs, peaks
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.hooks import DrawSamples, Evaluate, Hook, Keeper
from crgan_cli.training.trainer import Stop, Trainer, Work

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
    run.made, run.alone = config.out is None, folder is None or config.out is not None
    # a run that is gone on with by its folder was chosen when it began
    known = run.read_result().get("choices", {})
    run.facts["choices"] = {group: name for group, name in choices.items() if name} or known
    with speaking(), run.claim():
        try:
            with logging_to(run.log):
                return begin(config, overrides, run)
        finally:
            run.discard_if_empty()


def begin(config: DictConfig, overrides: Sequence[str], run: RunDir) -> float | None:
    """Makes the run's parts, or finds them where they were left, and trains."""
    resumed = from_first(run.is_run)
    config.data_root = str(Path(config.data_root).absolute())  # to be found from any folder
    if config.dataset.get("root") is not None:
        config.dataset.root = str(Path(config.dataset.root).expanduser().absolute())
    if resumed:
        by_first(lambda: require_same(configured(run), config, run))
    if (done := from_first(lambda: finished(run, config.steps))) is not None:
        log.info("%s has all its %d steps", run.path, config.steps)
        return headline_in(done)
    training = Training(config, run)
    if training.is_finished():
        return training.last_headline()
    if first():
        write_text(run.config, to_text(config))
        if not resumed:
            command = shlex.join(["crgan", "train", *overrides])
            write_text(run.overrides, command + "\n")
    run.write_result({"status": "running"})
    with reported(run), lost_named():
        return training.go()


def configured(run: RunDir) -> DictConfig:
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
            f"`crgan train --from {quoted(run.path)}`, or insist with resume=force."
        )


def telling(settings: Mapping[str, object]) -> dict[str, object]:
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


class Training:
    """All parts of a run. Making one checks all that can be checked before the first step."""

    def __init__(self, config: DictConfig, run: RunDir) -> None:
        self.config = config
        self.run = run
        self.settings = Run.of(config)
        self.device = own_device(device_of(self.settings.device))
        self.evaluator = load.evaluator_of(config)
        self.dataset = dataset_of(config)
        images = by_all(lambda: self.dataset.load("train"))
        self.provenance = provenance(fingerprint(images), self.device)
        if len(set(everyones(self.provenance["training_images_sha256"]))) > 1:
            raise UserError(
                "the processes of this run have different training images (their SHA-256 differ). "
                f"Put the same {self.dataset.title} into data_root={config.data_root} on every "
                "machine."
            )
        engine: Eager = build_group(config.engine)
        self.engine = engine.on(self.device)
        optimization = build_group(config.optimizer)
        players = build.players_of(config)
        self.task = build.task_of(config, players)
        self.engine.prepare(self.task, self.device)
        spread([*self.task.parameters(), *self.task.buffers()])
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
            work=self.work(),
        )
        self.found = self.checkpoint()
        if self.evaluator and self.evaluator.protocol.weights == "ema" and ema.decay is None:
            raise UserError(
                "metrics.weights=ema scores the averaged generator, and ema.decay=null keeps none: "
                "give a decay, as in ema.decay=0.9999, or metrics.weights=auto."
            )
        if self.evaluator:  # now, so that metrics that cannot be had are known at the start
            self.evaluator.to(self.device)
            with Scoring() as scoring:
                self.evaluator.prepare(self.dataset, progress=scoring.show)
            averaged = ema.decay is not None and self.evaluator.protocol.weights != "raw"
            run.facts["protocol"] = {
                **self.evaluator.describe(),
                "generator_weights": "ema" if averaged else "raw",
            }

    def work(self) -> Work | None:
        """What a step is worth in FLOP; None for networks that cannot be counted."""
        flop = costs.flop_a_step(self.config)
        if flop is None:
            return None
        precision = self.engine.precision
        peak = peaks.peak(self.device, precision)
        name = "this CPU's matrix products" if self.device.type == "cpu" else describe(self.device)
        of = f"the {peak / 1e12:.3g} of {name} in {precision}" if peak else ""
        return Work(flop, peak, of)

    def checkpoint(self) -> checkpoint.Found | None:
        """The checkpoint to go on from. Raises UserError where its images were others."""
        found = from_first(lambda: checkpoint.newest(self.run.checkpoints))
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
        longer = f"crgan train --from {quoted(self.run.path)} steps={2 * done}"
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

    def go(self) -> float | None:
        """Trains to the end, and says what came of it."""
        step, settled = 0, True
        if self.found:
            step, settled = self.found.content["step"], self.found.content["settled"]
        watch = Watch(self.settings.steps, step=step)
        recorder = recorder_of(self.run, step=step, settled=settled)
        stop = Stop()
        try:
            with stop.listening(), watch:
                hooks, keeper = self.hooks(recorder, watch)
                if self.found:
                    keeper.load(self.trainer, self.found)
                self.trainer.begin()
                self.announce(recorder, keeper)
                self.found = None  # its tensors are as large as the run's own
                self.trainer.fit(recorder, hooks, keeper, watch, stop)
                recorder.finish()
        finally:
            recorder.close()
        return self.finish(keeper)

    def hooks(self, recorder: Recorder, watch: Watch) -> tuple[list[Hook], Keeper]:
        """What is done every N steps."""
        settings, G = self.settings, self.trainer.G
        prior = build.prior_of(self.config, G)
        num = settings.samples.num
        columns = square(num)
        labels = labels_by_row(num, columns, prior.classes)
        shown = Sampler(random_codes(prior, num, settings.seed, labels=labels), self.device)
        hooks: list[Hook] = [
            DrawSamples(settings.samples.every, shown, num, columns, self.run, recorder)
        ]
        evaluate = None
        if self.evaluator:
            scored = Scored(self.evaluator.protocol, prior, settings.seed, self.device)
            evaluate = Evaluate(self.evaluator, scored, recorder, watch)
            hooks.append(evaluate)
        keeper = Keeper(
            self.run,
            every=settings.checkpoint.every,
            keep=settings.checkpoint.keep,
            config=to_text(self.config),
            provenance=self.provenance,
            evaluate=evaluate,
        )
        return hooks, keeper

    def announce(self, recorder: Recorder, keeper: Keeper) -> None:
        """Says what will be done, in the log and in TensorBoard."""
        log.info("run folder %s", self.run.path)
        log.info("device %s, engine %s", describe(self.device), self.engine.describe())
        if self.device.type == "cpu" and self.config.architecture.get("width") == 1.0:
            log.info(
                "on a CPU, architecture.width=0.25 is some ten times faster than the whole net"
            )
        for line in self.task.plan():
            log.info("%s", line)
        if work := self.trainer.work:
            log.info(
                "a step is %.3g TFLOP, with the networks as they are written", work.flop / 1e12
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
        recorder.hparams(telling(flat(self.config)), tag)

    def finish(self, keeper: Keeper) -> float | None:
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
        if run.alone and first():  # a sweep ends with a table
            self.tell(evaluate)
        return evaluate.last[evaluate.evaluator.headline] if evaluate else None

    def tell(self, evaluate: Evaluate | None) -> None:
        """What came of the run, on stdout."""
        run, step = self.run, self.trainer.step
        print(f"finished {step} steps in {duration(self.trainer.seconds)}")
        print(f"  samples      {run.samples / f'step_{step:08d}.png'}")
        print(f"  tensorboard  tensorboard --logdir {quoted(run.tensorboard)}")
        print(f"  checkpoint   {checkpoint.by_step(run.checkpoints)[0]}")
        if evaluate is None:
            return
        name = evaluate.evaluator.headline
        for key, value in evaluate.last.items():
            if key != "step":
                print(f"  {key:12s} {value:.4f}")
        print(f"  best {name} {evaluate.best[name]:.4f} at step {evaluate.best['step']:.0f}")
        curve = [f"{line[name]:.1f}" for line in history(run) if line["kind"] == "eval"]
        print(f"  {name} over the run: {' '.join(curve)}")
