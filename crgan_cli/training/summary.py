"""What a training run reports: its plan at the start, its result at the end."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from crgan_cli.config.resolve import flatten
from crgan_cli.gan.ada import ADA
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.regularizers.weights import WeightClipping
from crgan_cli.networks.fast.spectral import find_norms
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.next_commands import list_next_commands
from crgan_cli.runs.provenance import get_peak_memory
from crgan_cli.runs.record import Recorder, read_history
from crgan_cli.runs.status import Status
from crgan_cli.system.device import describe_device
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.numbers import format_duration, format_metric, format_number
from crgan_cli.system.paths import shell_quoted
from crgan_cli.training.build import TrainingRun
from crgan_cli.training.hooks import Evaluate

log = logging.getLogger(__name__)

FEW = 5000
"""Training images below which a run says what helps (our choice)."""

NOT_HPARAMS = (
    "out",
    "resume",
    "device",
    "data_root",
    "dataset.root",
    "log.",
    "samples.",
    "checkpoint.",
    "published.",
    "sweep.",
    "logger.",
)
"""Beginnings of the keys that do not tell runs apart."""


def hparams(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that tell runs apart: for each group its classes and their values."""
    result: dict[str, object] = {}
    for key, value in settings.items():
        if key.startswith(NOT_HPARAMS):
            continue
        group, target, _ = key.partition("._target_")
        if target:
            name = str(value).rpartition(".")[2] if value else "none"
            result[group] = f"{result[group]}+{name}" if group in result else name
        else:
            result[key] = value
    return result


def swept_settings(settings: Mapping[str, object], run: RunDir) -> list[str]:
    """Return the settings in which the runs of this one's sweep differ, as `hparams` names them.

    A group that was swept is one of them; of a swept experiment it is not known which.
    """
    swept = run.extra_fields.get("swept", ())
    assert isinstance(swept, list | tuple)
    return [str(key) for key in swept if key in settings]


def log_plan(
    training: TrainingRun,
    evaluate: Evaluate | None,
    found: LoadedCheckpoint | None,
    recorder: Recorder,
) -> None:
    """Log what will be done, also to the loggers."""
    config, trainer = training.config, training.trainer
    log.info("run folder %s", training.run.path)
    log.info("device %s, engine %s", describe_device(training.device), training.engine.describe())
    if training.device.type == "cpu" and config.architecture.get("width") == 1.0:
        log.info("on a CPU, architecture.width=0.25 is about ten times faster than full width")
    for line in training.task.describe_turns():
        log.info("%s", line)
    warn_of_noisy_consistency(training.task, config.architecture)
    warn_of_unfit_parts(training.task)
    advise_on_few_images(training.image_count, config)
    left_out = [str(stage.sides) for stage in trainer.stages if stage.first >= trainer.steps]
    if left_out:
        log.warning(
            "steps=%d ends before the stages of %s pixels begin; for all of them type steps=%d or "
            "more, or fewer images per stage",
            trainer.steps,
            " and ".join(left_out),
            trainer.stages.grown_at + 1,
        )
    if evaluate:
        evaluator = evaluate.evaluator
        log.info(
            "metrics %s every %d steps by the protocol %s, extractor %s (SHA-256 %.8s)",
            evaluator.headline,
            evaluate.every,
            evaluator.label,
            evaluator.extractor.name,
            evaluator.extractor.sha256,
        )
    if found:
        log.info("resuming from %s, step %d", found.path, trainer.step)
    recorder.each(lambda logger: logger.text("config", training.config_text))
    tag = evaluate.evaluator.tag(evaluate.evaluator.headline) if evaluate else None
    settings = hparams(flatten(config))
    swept = swept_settings(settings, training.run)
    recorder.each(lambda logger: logger.hparams(settings, swept, tag))


def warn_of_noisy_consistency(task: nn.Module, architecture: Mapping[str, object]) -> None:
    """Log that dropout in D disturbs a consistency term, and which settings end that."""
    if not any(isinstance(m, Adversary) and m.has_noisy_consistency for m in task.modules()):
        return
    keys = [key for key in architecture if key.startswith("d_") and key.endswith("dropout")]
    advice = " ".join(f"architecture.{key}=0" for key in keys if architecture[key])
    log.warning(
        "D has dropout, with a mask of its own for each view: the consistency term is noisy, and "
        "is not 0 even for equal views.%s",
        f" Without: {advice}" if advice else "",
    )


def warn_of_unfit_parts(task: nn.Module) -> None:
    """Log which of a loss, D, its regularizers and T_both do not go together, and what does."""
    found = [
        warning
        for m in task.modules()
        if isinstance(m, Adversary)
        for warning in find_unfit_parts(m)
    ]
    for warning in dict.fromkeys(found):
        log.warning("%s", warning)


def find_unfit_parts(adversary: Adversary) -> Iterator[str]:
    """Give a sentence for each pair of parts that disturb each other."""
    loss, penalties = adversary.loss, adversary.regularizer.members
    clips, normed = any(isinstance(p, WeightClipping) for p in penalties), find_norms(adversary.D)
    if clips and normed:
        yield (
            "regularizer=clip: spectral norm divides D's weights by their norms again, so clipping "
            "changes little. Type architecture.spectral_norm=false"
        )
    bounded = clips or normed or any(part.gradient_views for part in penalties)
    if loss.needs_bounded_slope and not bounded:
        yield (
            f"{type(loss).__name__}: nothing keeps D Lipschitz, so its loss has no least value and "
            "its scores may grow without end. Type regularizer=gp, regularizer=clip (the paper's), "
            "or architecture.spectral_norm=true if the architecture has it"
        )
    adapts = any(isinstance(T, ADA) for T in adversary.T_both.members.values())
    if adapts and not loss.sign_is_verdict:
        yield (
            f"augment_both=ada follows the signs of D's scores of real images, and under "
            f"{type(loss).__name__} a sign does not say what D takes for real: p is no measure of "
            "overfitting. Type augment_both=diffaugment, or loss=non_saturating or hinge"
        )


def advise_on_few_images(count: int, config: Mapping[str, Any]) -> None:
    """Log what helps a model of few training images, as far as it is not chosen, and its cost."""
    if count >= FEW or not config["architecture"].get("prior"):
        return
    advice = []
    if not config["augment_both"]["_target_"]:
        advice.append("augment_both=ada or diffaugment (all that D sees; no more passes of D or G)")
    if "zcr" not in (config["regularizer"]["_target_"] or ()):
        advice.append("regularizer=icr (twice the work of a step without)")
    if not config["dataset"].get("flip"):
        advice.append("dataset.flip=true if mirrored images are right (free)")
    if config.get("init_from") is None:
        advice.append("init_from=RUN, trained on many images of this size")
    log.info(
        "%s training images are few: D may learn them by heart.%s",
        f"{count:,}",
        f" What helps: {'; '.join(advice)}" if advice else "",
    )


def write_summary(training: TrainingRun, evaluate: Evaluate | None) -> None:
    """Write result.json, and print a summary unless a sweep will print its table."""
    trainer = training.trainer
    result: dict[str, object] = {
        "status": Status.FINISHED,
        "step": trainer.step,
        "images_seen": trainer.images_seen,
        "seconds": round(trainer.seconds, 1),
        "seed": training.settings.seed,
        "peak_memory_bytes": get_peak_memory(training.device),
        "engine": training.engine.describe(),
    }
    if evaluate:
        result |= {"last": evaluate.last, "best": evaluate.best}
    if stopped := describe_early_stop(training, evaluate):
        result["stopped_early"] = stopped
        log.info("stopped early at step %d: %s", trainer.step, stopped["reason"])
    training.run.write_result(result)
    if training.run.is_single_run and is_main():
        print_summary(training, evaluate)


def describe_early_stop(training: TrainingRun, evaluate: Evaluate | None) -> dict[str, object]:
    """Return why a run has ended before its last step, and by which settings; empty if not."""
    if evaluate is None or training.trainer.step == training.trainer.steps:
        return {}
    early = training.settings.early_stop
    reason = evaluate.early_stop.describe(evaluate.evaluator.headline)
    return {"reason": reason, "patience": early.patience, "min_delta": early.min_delta}


def print_summary(training: TrainingRun, evaluate: Evaluate | None) -> None:
    """Print the result of a run on stdout."""
    run, step = training.run, training.trainer.step
    print(f"finished {step} steps in {format_duration(training.trainer.seconds)}")
    if stopped := describe_early_stop(training, evaluate):
        print(f"  stopped early of {training.trainer.steps} steps: {stopped['reason']}")
    print(f"  samples      {run.samples / f'step_{step:08d}.png'}")
    if run.tensorboard.exists():
        print(f"  tensorboard  tensorboard --logdir {shell_quoted(run.tensorboard)}")
    print(f"  checkpoint   {next(iter(run.list_checkpoints()), run.best)}")
    if evaluate:
        print_scores(training, evaluate)
    print("next:")
    config, to = flatten(training.config), next(iter(training.draws))
    for command in list_next_commands(run.path, config, resumes=False, to=to):
        print(f"  {command}")


def print_scores(training: TrainingRun, evaluate: Evaluate) -> None:
    """Print the last and the best metrics of a run, and how they went."""
    name = evaluate.evaluator.headline
    for key, value in evaluate.last.items():
        if key != "step":
            print(f"  {key:12s} {format_metric(value)}")
    if name in evaluate.best:
        best = format_metric(evaluate.best[name])
        at = int(evaluate.best["step"])
        side = training.trainer.stages.describe_growth(at)
        print(f"  best {name} {best} at step {at}{side and f', images of {side}'}")
    evals = [line for line in read_history(training.run) if line["kind"] == "eval" and name in line]
    print(f"  {name} over the run: {' '.join(format_number(line[name]) for line in evals)}")
