"""Train one job: what Hydra calls for a single run and for each job of a sweep."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.config.messages import override_key
from crgan_cli.errors import Interrupted, RunFailed, UserError
from crgan_cli.experiments.job_folder import choose_folder, hash_settings, job_name
from crgan_cli.experiments.parallel import count_visible_gpus
from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.experiments.sweep_table import format_finished
from crgan_cli.gan.stages import Stages
from crgan_cli.runs.folder import RunDir, decide_on_main, find_step
from crgan_cli.runs.status import Status
from crgan_cli.system.console import format_unexpected, print_error
from crgan_cli.system.distributed.launch import is_distributed, is_main
from crgan_cli.system.environment import SWEEP_TABLE_VAR
from crgan_cli.system.streams import protect_streams

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig


class SingleRun:
    """What became of a single run: its folder, and its failure if it failed."""

    folder: Path | None = None
    failure: Exception | None = None

    def begin(self, folder: Path) -> None:
        """Keep the folder."""
        self.folder = folder


def run_single(outcome: SingleRun, cfg: "DictConfig") -> float | None:
    """Train a single run. Keep its failure: Hydra would print it in its own way."""
    from hydra.core.hydra_config import HydraConfig

    try:
        return run_training(cfg, HydraConfig.get(), None, tell=outcome.begin)
    except Exception as error:
        outcome.failure = error
        return None


def run_job_on_every_rank(state: SweepState, cfg: "DictConfig") -> float | None:
    """Train one job of a sweep. Of several processes, the main one keeps the sweep's records."""
    protect_streams()  # a launcher's process has not come through `commands.main`
    if not is_distributed():
        return run_job(state, cfg)
    from crgan_cli.system.distributed.objects import broadcast_from_main
    from crgan_cli.system.distributed.setup import distributed_run

    with distributed_run():
        if broadcast_from_main(lambda: state.stopped) and not is_main():
            return float("nan")
        return run_job(state, cfg) if is_main() else run_job_on_worker_rank(state, cfg)


def run_job_on_worker_rank(state: SweepState, cfg: "DictConfig") -> float | None:
    """Train a job in a process that is not the main one: no records, only its errors."""
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose
    from crgan_cli.system.distributed.errors import PeerLost

    node = HydraConfig.get()
    try:
        compose.require_valid(cfg)
        return run_training(cfg, node, choose_folder_on_main(state, cfg, node))
    except Exception as error:
        if not isinstance(error, PeerLost):  # into Slurm's log of this task
            print_error(f"crgan train: {type(error).__name__}: {error}", code=1)
        return float("nan")


def run_job(state: SweepState, cfg: "DictConfig") -> float | None:
    """Train one job of a sweep. Return its primary metric, or NaN if it failed.

    Only an interruption is raised: Hydra would not report a failed job before the last one ends.
    Under joblib not even that, since it would kill the jobs that still save: the sweep is stopped,
    and `launch.raise_interruption` raises it when all have ended.
    """
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose

    node = HydraConfig.get()
    job = SweepJob(int(node.job.num) + 1, job_name(node), "", Status.RUNNING)
    if state.stopped:
        state.write(job._replace(status=Status.NOT_STARTED))
        return float("nan")
    state.write(job)
    if SWEEP_TABLE_VAR not in os.environ:  # a table has a row for it
        of_all = f" of {state.total}" if state.total else ""
        print(f"job {job.number}{of_all}: {job.name}", file=sys.stderr)
    start = time.monotonic()
    try:
        compose.require_valid(cfg)  # a sweeper may choose values that nobody typed
        with one_at_a_time(state, cfg):
            folder = choose_folder_on_main(state, cfg, node)
            state.write(job := job._replace(folder=folder.name))
            before, step = RunDir(folder).read_result(), count_steps_done(folder)
            with with_device(state, cfg, node):
                job = job._replace(began=time.time())
                value = run_training(cfg, node, folder)
                job = job._replace(ended=time.time(), value=value)
    except KeyboardInterrupt as error:
        signum = error.signum if isinstance(error, Interrupted) else signal.SIGINT
        state.write(job._replace(status=Status.INTERRUPTED, code=128 + signum))
        if not is_launched_by(node, "JoblibLauncher"):
            raise
        state.stop()
        return float("nan")
    except Exception as error:
        fail_job(state, job._replace(seconds=time.monotonic() - start), error)
        if cfg.sweep.on_error == "stop":
            state.stop()
        # they hold the networks
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return float("nan")
    result = RunDir(folder).read_result()
    skipped = bool(before) and result == before
    seconds, stages = job.ended - job.began, Stages.from_settings(cfg)
    images, training = count_new_images(stages, step, result, seconds)
    early = result["step"] if result.get("stopped_early") else 0
    job = job._replace(images=images, training=training, early=early)
    job = job._replace(seconds=time.monotonic() - start)
    finish_job(state, job._replace(status=Status.SKIPPED if skipped else Status.FINISHED))
    return value


def choose_folder_on_main(state: SweepState, cfg: "DictConfig", node: "HydraConf") -> Path:
    """Return the folder of a job, the same in all its processes."""
    return decide_on_main(lambda: choose_folder(state.folder, cfg, node))


def one_at_a_time(state: SweepState, cfg: "DictConfig") -> AbstractContextManager[object]:
    """Wait while another job has the same settings, as Optuna may propose them twice.

    Then its run is there. A job of several processes does not wait: the others would time out.
    """
    return nullcontext() if is_distributed() else state.lock_settings(hash_settings(cfg))


def finish_job(state: SweepState, job: SweepJob) -> None:
    """Record and report a job that has ended well."""
    state.write(job)
    print(format_finished(job, state), file=sys.stderr)


def fail_job(state: SweepState, job: SweepJob, error: Exception) -> None:
    """Record and report a failed job."""
    expected = isinstance(error, (UserError, RunFailed))
    message = str(error) if expected else format_unexpected(error)
    code = 2 if isinstance(error, UserError) else 1
    state.write(job._replace(status=Status.FAILED, error=message, code=code))
    print_error(f"crgan train: job {job.number} ({job.name}) failed: {message}", code=1)


def count_steps_done(folder: Path) -> int:
    """Return the step of a run's newest checkpoint, from which it would resume; 0 if none."""
    return next(map(find_step, RunDir(folder).list_checkpoints()), 0)


def count_new_images(stages: Stages, step: int, result: dict, seconds: float) -> tuple[int, float]:
    """Return how many real images D has seen since a step, and the seconds this took.

    `result` is the run's result.json, `seconds` those of the job. The result of a resumed run does
    not tell new seconds from old ones, so then the job's count.
    """
    done = result.get("step", 0)
    if done <= step:
        return 0, 0.0
    images = stages.images(done) - stages.images(step)
    return images, seconds if step else result.get("seconds", seconds)


def is_launched_by(node: "HydraConf", launcher: str) -> bool:
    """Return whether the class of Hydra's launcher has this name."""
    return str(node.launcher._target_).endswith(launcher)


@contextmanager
def with_device(state: SweepState, cfg: "DictConfig", node: "HydraConf") -> Iterator[None]:
    """Hold a GPU, or a share of one, if jobs run in parallel. Wait until one is free."""
    if (
        is_launched_by(node, "BasicLauncher")
        or is_distributed()
        or cfg.device != "auto"
        or not (count := count_visible_gpus())
    ):
        yield
        return
    with state.acquire_device(count, cfg.sweep.per_device) as index:
        cfg.device = f"cuda:{index}"
        yield


def run_training(
    cfg: "DictConfig",
    node: "HydraConf",
    folder: Path | None,
    *,
    tell: Callable[[Path], object] = lambda folder: None,
) -> float | None:
    """Train a run in `folder`, or in a new folder if None, with the overrides Hydra was given."""
    from crgan_cli.config.trust import require_code_typed
    from crgan_cli.training.start import train_run

    overrides = list(node.overrides.task)
    # again, since not all jobs of a large sweep are checked before the first
    # what a file sweeps is not typed, although Hydra lists it with what is
    typed = {override_key(text) for text in overrides} - set(node.sweeper.get("params") or {})
    require_code_typed(cfg, typed, "an experiment's file")
    swept: list[str] = []
    if folder is not None:  # of a sweep
        common = map(override_key, node.job.config.override_dirname.exclude_keys)
        swept = list(dict.fromkeys(map(override_key, overrides)).keys() - set(common))
    choices = chosen_choices(node.runtime.choices, overrides)
    command = [*list_config_dirs(node), *overrides]
    return train_run(cfg, command, choices, folder, swept=sorted(swept), tell=tell)


def list_config_dirs(node: "HydraConf") -> list[str]:
    """Return --config-dir DIR as it was typed, if it was; Hydra does not list it as an override."""
    folders = [each.removeprefix("file://") for each in node.searchpath or ()]
    return [word for folder in folders for word in ("--config-dir", folder)]


def chosen_choices(
    known: Mapping[str, str | None], overrides: Sequence[str]
) -> dict[str, str | None]:
    """Return group -> choice. Hydra omits a choice that is a list, such as regularizer=[cr,gp]."""
    chosen = {group: name for group, name in known.items() if "/" not in group}
    for override in overrides:
        key, _, value = override.partition("=")
        if value.startswith("[") and "." not in key:
            chosen[key] = value
    return chosen
