"""Start a training run in a folder of its own, or resume the one that is there."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from crgan_cli.config.compose import expand_paths
from crgan_cli.config.resolve import Settings
from crgan_cli.config.stored import (
    MAY_CHANGE_ON_RESUME,
    difference,
    make_paths_absolute,
    read_stored,
)
from crgan_cli.errors import UserError
from crgan_cli.runs import checkpoint
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.folder import OUTPUTS, RunDir, new_folder
from crgan_cli.runs.outcome import has_ended, primary_metric, recording_failure
from crgan_cli.runs.record import Recorder
from crgan_cli.runs.settings import load_text
from crgan_cli.runs.status import Status
from crgan_cli.system.atomic import write_text
from crgan_cli.system.console import log_to_file, log_to_stderr
from crgan_cli.system.distributed.errors import name_lost_peer
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.distributed.objects import broadcast_from_main, on_main
from crgan_cli.system.memory import explained_shortage
from crgan_cli.system.paths import shell_joined, shell_quoted
from crgan_cli.system.progress import TrainingProgress
from crgan_cli.training.build import TrainingRun
from crgan_cli.training.costs import relative_costs
from crgan_cli.training.hooks import CheckpointManager, Hook
from crgan_cli.training.stop import StopSignal
from crgan_cli.training.summary import log_plan, write_summary

log = logging.getLogger(__name__)

WHERE = ("out", "resume", "data_root", "dataset.root", "sweep", "published")
"""Keys that change nothing in a run."""

MORE_MEMORY = (
    "Free what other programs use, or start a new run, with out=FOLDER and a smaller batch_size, "
    "architecture.width, dataset.resolution, samples.num or metrics.batch_size."
)
"""What to do if a run finds no memory."""


def train_run(
    config: DictConfig,
    overrides: Sequence[str],
    choices: Mapping[str, str | None],
    folder: Path | None,
    may_change: Collection[str] = (),
    swept: Sequence[str] = (),
    *,
    tell: Callable[[Path], object] = lambda folder: None,
) -> float | None:
    """Train, or resume training, and return the primary metric; None without metrics.

    `overrides` is what was typed behind `crgan train`. A run that is resumed may differ in the keys
    of `may_change`, besides those that always may. `swept` are the keys in which the jobs of its
    sweep differ. `tell` gets the folder of the run.
    `folder` is a sweep's; a single run takes `out`, or a new folder below outputs/. Raises
    UserError, RunFailed or Interrupted, each with what to do next.
    """
    expand_paths(config)
    if config.out is not None:
        folder = Path(config.out)
    run = RunDir(folder or new_folder(OUTPUTS, choices.get("experiment"), choices))
    run.created_here = config.out is None
    run.is_single_run = folder is None or config.out is not None
    tell(run.path)
    with log_to_stderr(), run.lock():
        # a run that is resumed by its folder has the choices of its start
        typed = {group: name for group, name in choices.items() if name}
        before = run.read_result()
        run.extra_fields["choices"] = typed or before.get("choices", {})
        if swept or before.get("swept"):
            run.extra_fields["swept"] = list(swept) or before["swept"]
        try:
            with log_to_file(run.log):
                return start_or_resume(config, overrides, run, may_change)
        finally:
            run.discard_if_empty()


def start_or_resume(
    config: DictConfig, overrides: Sequence[str], run: RunDir, may_change: Collection[str]
) -> float | None:
    """Build the run, from its newest checkpoint if any, and train. Nothing if it has finished."""
    make_paths_absolute(config)

    # Refuse another configuration; find what is done. Only a run that trains needs the checkpoint
    # on every rank.
    resumed = broadcast_from_main(run.is_run)
    if resumed:
        on_main(lambda: require_same(load_config(run), config, run, may_change))
        on_main(lambda: run.require_steps(config.steps))
    found, result = broadcast_from_main(lambda: find_progress(run, config, may_change))
    if result is not None:
        return primary_metric(result)

    # Build and load. Until then the folder is as it was, but for its log: a run that cannot go on
    # with these settings goes on with its own.
    command = shell_joined(["crgan", "train", *overrides])
    with explained_shortage(MORE_MEMORY):
        training = TrainingRun(config, run, found, command)
        session = prepare_session(training, found)

    # Write the configuration, train.
    if resumed:
        on_main(lambda: record_changes(run, config, training.trainer.step))
    if is_main():
        if not resumed:
            write_text(run.overrides, command + "\n")
        write_text(run.config, training.config_text)  # last: from now on a run is here
    run.write_result({"status": Status.RUNNING})
    if training.crowd:
        training.crowd.command = f"crgan train --from {shell_quoted(run.path)}"
    with recording_failure(run), name_lost_peer(), explained_shortage(MORE_MEMORY):
        return train(training, session, found)


def load_config(run: RunDir) -> Settings:
    """Read the configuration that a run was started with."""
    return read_stored(*load_text(run))


def record_changes(run: RunDir, now: DictConfig, step: int) -> None:
    """Say what a resumed run does otherwise from `step` on, and keep it for its result.json."""
    changes = run.read_result().get("changes", [])
    before = load_config(run)
    if changed := difference(before, now, WHERE):
        changes = [*changes, {"step": step, "settings": changed}]
        log.info("changed from step %d on: %s", step, ", ".join(changed))
        if any(line.startswith("optimizer.") for line in changed):
            log.warning(
                "the steps before step %d, and the optimizer's moments, are those of the former "
                "optimizer settings: no single command repeats this run",
                step,
            )
        rates = before["optimizer"]
        keys = [line.partition(":")[0] for line in changed]
        if (
            "optimizer.lr_g" in keys
            and "optimizer.lr_d" not in keys
            and rates.get("lr_d") == rates.get("lr_g")
        ):
            log.warning(
                "optimizer.lr_d stays %s, which was lr_g's value: type it too to change both",
                rates["lr_d"],
            )
    if changes:
        run.extra_fields["changes"] = changes


def require_same(
    before: Settings, now: DictConfig, run: RunDir, may_change: Collection[str] = ()
) -> None:
    """Raise UserError if a run would be resumed with another configuration."""
    if now.resume == "never":
        raise UserError(
            f"the folder {run.path} already contains a run, and resume=never. Choose another with "
            "out=FOLDER, or resume it with resume=auto."
        )
    changed = difference(before, now, (*MAY_CHANGE_ON_RESUME, *may_change))
    if before.get("steps") != now.steps and decays(before) and decays(now):
        steps = f"steps: {before.get('steps')} -> {now.steps}"
        changed.append(f"{steps} (optimizer.decay runs over them)")
    if changed and now.resume != "force":
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"the run in {run.path} was started with another configuration:{lines}\n"
            "Choose another folder with out=FOLDER, resume it unchanged with "
            f"`crgan train --from {shell_quoted(run.path)}`, or type its whole command with "
            "resume=force."
        )


def decays(config: Mapping[str, Any]) -> bool:
    """Whether a learning rate falls over all steps of a run."""
    return any(config["optimizer"].get(key) not in (None, "none") for key in ("decay", "decay_d"))


def find_progress(
    run: RunDir, config: DictConfig, may_change: Collection[str]
) -> tuple[LoadedCheckpoint | None, dict[str, Any] | None]:
    """Return the checkpoint to resume from, if any, or the result of a finished run."""
    found = checkpoint.load_latest(run.checkpoints)
    result = run.read_result()
    if found is None:
        if result.get("status") != Status.FINISHED:
            return None, None
        if has_ended(result, config):
            log.info("Nothing to do: %s has finished. Its checkpoints are gone.", run.path)
            return None, result
        raise UserError(
            f"the run in {run.path} has finished, and its checkpoints are gone: it cannot be "
            "trained longer. Start again with out=FOLDER, or put a checkpoint back."
        )
    require_same_settings(found, config, run, may_change)
    return (None, result) if is_finished(found, result, config, run) else (found, None)


def require_same_settings(
    found: LoadedCheckpoint, config: DictConfig, run: RunDir, may_change: Collection[str]
) -> None:
    """Raise UserError if a checkpoint was trained with another configuration: a run's config.yaml
    was changed or damaged since."""
    before = read_stored(found.content["config"], str(found.path))
    changed = difference(before, config, (*MAY_CHANGE_ON_RESUME, *may_change))
    if changed and config.resume != "force":
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"{found.path} was trained with another configuration than {run.config} holds:{lines}\n"
            "Put the former values back into that file, or start the run by its whole command with "
            "resume=force to go on with the new ones."
        )


def is_finished(
    found: LoadedCheckpoint, result: Mapping[str, Any], config: DictConfig, run: RunDir
) -> bool:
    """Whether nothing is left to do.

    A run that was killed between its last checkpoint and result.json is not finished: resumed, it
    takes no step and writes its result, with the versions and the device of that last session.
    """
    done = found.content["step"]
    if not has_ended(result, config) or done < result["step"]:
        return False
    if done < config.steps:
        log.info(
            "Nothing to do: %s stopped early at step %d: %s. To go on: %s",
            *(run.path, done, result["stopped_early"].get("reason"), run.format_past_stop()),
        )
        return True
    longer = run.format_longer(done)
    log.info("Nothing to do: %s has all its %d steps. To train longer: %s", run.path, done, longer)
    return True


class Session(NamedTuple):
    """What a session of a run needs besides its parts."""

    recorder: Recorder
    progress: TrainingProgress
    hooks: list[Hook]
    checkpoints: CheckpointManager


def prepare_session(training: TrainingRun, found: LoadedCheckpoint | None) -> Session:
    """Build what logs and saves, and load the checkpoint. Nothing is written.

    Raises UserError for a checkpoint that does not fit.
    """
    recorder = Recorder(training.run, training.loggers)
    progress = TrainingProgress(
        training.trainer.steps,
        step=found.content["step"] if found else 0,
        crowd=training.crowd,
        costs=relative_costs(training.config, training.device.type),
    )
    hooks, checkpoints = training.build_hooks(recorder, progress)
    if found:
        checkpoints.load(training.trainer, found)
        found.content["states"].clear()  # its tensors are as large as the run's own
    return Session(recorder, progress, hooks, checkpoints)


def train(training: TrainingRun, session: Session, found: LoadedCheckpoint | None) -> float | None:
    """Train to the end, write the result and return the primary metric."""
    trainer = training.trainer
    recorder, watch, hooks, checkpoints = session
    evaluate = checkpoints.evaluate
    stop = StopSignal()
    with stop.handling_signals():  # first: from the first file on, a signal ends in a saved run
        recorder.open(step=trainer.step, hooks_done=trainer.hooks_done)
        try:
            with watch as progress:
                if found:
                    on_main(lambda: checkpoints.complete(found.path, trainer.step))
                trainer.begin()
                log_plan(training, evaluate, found, recorder)
                trainer.fit(recorder, hooks, checkpoints, progress, stop)
                recorder.each(lambda logger: logger.finish())
        finally:
            recorder.each(lambda logger: logger.close())
    write_summary(training, evaluate)
    return evaluate.last.get(evaluate.evaluator.headline) if evaluate else None
