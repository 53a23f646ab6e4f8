"""What the commands do, as functions: `crgan.train`, `crgan.evaluate` and `crgan.report`.

`crgan_cli` lists them under these names. `crgan.load` is `evaluation.model.load_model`. They do the
work of the commands by the code of the commands, and print nothing of their own.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from crgan_cli.errors import UserError, conflict, spelled_for_python
from crgan_cli.system.arguments import (
    require_choice,
    require_path,
    require_settings,
    require_text,
    require_words,
)
from crgan_cli.system.paths import expand_home

if TYPE_CHECKING:
    from crgan_cli.evaluation.model import Model
    from crgan_cli.evaluation.records import Evaluation
    from crgan_cli.report.model import Report

PathLike = str | Path


class TrainedRun(NamedTuple):
    """A run: its folder, for `crgan.load`, and what its result.json holds."""

    folder: Path
    result: dict[str, Any]


def start_training(
    overrides: Sequence[str] = (), *, config_dir: PathLike | None = None
) -> TrainedRun:
    """Train one run, as `crgan train OVERRIDES` does; with `out=FOLDER` of a run, resume it.

    `overrides`: settings as KEY=VALUE. `config_dir`: a folder with more YAML files. Progress and
    messages go to stderr. Raises UserError for wrong settings and for a sweep, RunFailed for a run
    that failed.
    """
    from crgan_cli.config import compose
    from crgan_cli.config.choices import Choices
    from crgan_cli.experiments import launch
    from crgan_cli.experiments.check import check_jobs, prepare_overrides
    from crgan_cli.runs.folder import RunDir
    from crgan_cli.system.distributed.launch import is_torchrun

    settings = require_settings(overrides)
    with spelled_for_python():
        typed = prepare_overrides(settings)
        more = None if config_dir is None else expand_home(require_path("config_dir", config_dir))
        choices = Choices(more)
        plan = check_jobs(typed, choices, multirun=False, whole=True)
    if plan is not None:
        raise UserError(
            "crgan.train trains one run, and these settings ask for a sweep (hydra.mode=MULTIRUN). "
            "Type crgan train in a shell, or call crgan.train once for each run."
        )
    if is_torchrun():
        from crgan_cli.system.distributed.setup import distributed_run
    else:
        distributed_run = nullcontext
    with distributed_run(), redirect_stdout(sys.stderr):  # the summary
        folder = launch.train_once(choices, [*compose.search_path_overrides(choices), *typed])
    assert folder is not None, "a run that has not failed has a folder"
    return TrainedRun(folder, RunDir(folder).read_result())


def score_model(
    what: "Model | PathLike",
    metrics: str | None = None,
    *,
    overrides: Sequence[str] = (),
    real: PathLike | None = None,
    weights: Literal["ema", "raw"] | None = None,
    best: bool = False,
) -> "Evaluation":
    """Score a model, a run, a checkpoint or images, as `crgan eval` does.

    `what`: a Model is scored as it is in memory. A run's folder or a checkpoint file is read, and
    the numbers go into the run's evaluations.jsonl too. A folder or a zip of images is compared
    with the images in `real`, or with the data set of the overrides.

    `metrics`: the protocol, such as "demo" or "fid10k_test" (the run's own). `overrides`: more
    settings as KEY=VALUE. `weights` and `best`: which generator of a run, as for `crgan.load`.

    Returns an Evaluation: `values` holds the numbers by name, `protocol` all that they depend on
    (`protocol["generator_weights"]` says which weights), `source` what was scored. Raises UserError
    for what cannot be scored, RunFailed for images that are not finite.
    """
    from crgan_cli.evaluation import sources
    from crgan_cli.evaluation.model import Model
    from crgan_cli.evaluation.overrides import require_fitting
    from crgan_cli.evaluation.records import append_record
    from crgan_cli.report.latest import resolve_run
    from crgan_cli.runs.folder import RunDir
    from crgan_cli.system.memory import explained_shortage

    require_choice("weights", weights, ("ema", "raw", None))
    words = name_protocol(metrics, require_settings(overrides))
    remedy = "Free what other programs use, or lower metrics.batch_size or metrics.num_samples."
    with spelled_for_python(), explained_shortage(remedy):
        if isinstance(what, Model):
            require_fitting("a model", real=real, weights=weights, best=best)
            return sources.evaluate_model(what, words, accept_all)
        path = resolve_run(require_path("what", what))
        of_images = real is not None or sources.is_of_images(path)
        require_fitting("images" if of_images else "a run", real=real, weights=weights, best=best)
        if real is not None:
            results = sources.evaluate_two_folders(
                path, expand_home(require_path("real", real)), words, accept_all
            )
        elif of_images:
            results = sources.evaluate_samples(path, None, words, accept_all)
        else:
            which = "best" if best else "newest"
            results = sources.evaluate_checkpoints(
                path, words, accept_all, which=which, weights=weights
            )
        (evaluation, folder), *_ = results
        if folder:
            append_record(evaluation, RunDir(folder).evaluations)
        return evaluation


def name_protocol(metrics: str | None, overrides: list[str]) -> list[str]:
    """Put a protocol in front of the settings. Raise UserError if another one is among them."""
    from crgan_cli.config.messages import override_key

    if metrics is None:
        return overrides
    first = f"metrics={require_text('metrics', metrics)}"
    for word in overrides:
        if override_key(word) == "metrics" and word != first:
            named = f"'{word}' in overrides", f"the protocol {metrics!r}"
            raise UserError(conflict(*named, "both say how to measure", "Leave one out."))
    return [first, *overrides]


def accept_all(record: object) -> None:
    """Accept any protocol."""


def compare_runs(
    folders: Sequence[PathLike],
    *,
    metric: str | None = None,
    step: Literal["last", "best"] = "last",
    title: str | None = None,
    force: bool = False,
    out: PathLike | None = None,
) -> "Report":
    """Compare runs, as `crgan report FOLDERS` does: one row per setting, the best first.

    `metric`: what to compare by (the protocol's primary metric). `step`: of each run. `force`:
    compare numbers of different protocols too. `out`: a folder to which the files of the command
    are written; by default none are.

    Returns a Report: of each of its `rows`, `label` names the settings and `numbers` holds the mean
    and the deviation over seeds by name. Raises UserError for what cannot be compared.
    """
    from crgan_cli.commands.report import make_report
    from crgan_cli.report.collect import collect
    from crgan_cli.report.latest import resolve_run
    from crgan_cli.report.write import FORMATS, make_report_folder, write_report

    require_choice("step", step, ("last", "best"))
    for name, text in (("metric", metric), ("title", title)):
        if text is not None:
            require_text(name, text)
    if out is not None:  # before the runs are read
        require_path("out", out)
    with spelled_for_python():
        paths = [resolve_run(path) for path in require_words("folders", folders)]
        if not paths:
            raise UserError("folders=[] names no run: give the folder of one, or of a sweep.")
        runs = collect(paths, metric)
        report = make_report(paths, runs, step=step, metric=metric, title=title, force=force)
        if out is not None:
            write_report(report, make_report_folder(expand_home(out)), FORMATS)
        return report
