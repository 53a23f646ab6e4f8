"""How a run ended, as written to its folder: finished, interrupted or failed."""

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from crgan_cli.errors import Interrupted, NotFinite, RunFailed, UserError
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.status import Status
from crgan_cli.system.paths import shell_quoted

log = logging.getLogger(__name__)
CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

LESS = "Try a smaller learning rate or regularizer weight, or engine.precision=fp32."
"""What may help a run whose numbers are not finite."""


def primary_metric(result: dict) -> float | None:
    """Return the primary metric in a finished run's result.json, or None without metrics."""
    return result.get("last", {}).get(result.get("protocol", {}).get("headline"))


def has_ended(result: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a run with this result.json has taken all steps that `config` asks for.

    One that stopped early has too, under the settings of `early_stop` that it stopped by.
    """
    if result.get("status") != Status.FINISHED:
        return False
    if result.get("step") == config["steps"]:
        return True
    stopped, now = result.get("stopped_early") or {}, config.get("early_stop") or {}
    return bool(stopped and now) and all(stopped.get(key) == now[key] for key in now)


@contextmanager
def recording_failure(run: RunDir) -> Iterator[None]:
    """Write an interruption or a failure to the run's folder, and raise it again."""
    try:
        yield
    except Interrupted as stopped:
        write_status(run, {"status": Status.INTERRUPTED, "signal": stopped.signum})
        log.info("Saved and stopped. Resume with: crgan train --from %s", shell_quoted(run.path))
        raise
    except KeyboardInterrupt:
        write_status(run, {"status": Status.INTERRUPTED})
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            reason = f"writing to {error.filename or run.path} failed: {error.strerror}"
            write_status(run, {"status": Status.FAILED, "error": reason})
            raise RunFailed(
                f"{reason}. {describe_kept(run)} Free some space and type: crgan train "
                f"--from {shell_quoted(run.path)}"
            ) from error
        if isinstance(error, NotFinite):
            error.args = (f"{error} {describe_kept(run)} {LESS}",)
        expected = isinstance(error, UserError | RunFailed)
        log.error(
            "%s: %s",
            type(error).__name__,
            error,
            exc_info=None if expected else error,
            extra={"for_the_file": True},
        )
        write_status(run, {"status": Status.FAILED, "error": f"{type(error).__name__}: {error}"})
        error.add_note(f"More is in {run.log}.")
        raise


def describe_kept(run: RunDir) -> str:
    """Say from where a run that failed would go on."""
    newest = next(iter(run.list_checkpoints()), None)
    return f"The last checkpoint is {newest}." if newest else "No checkpoint was saved before."


def write_status(run: RunDir, result: Mapping[str, object]) -> None:
    """Write how a run ended, if possible. The run's own error must not be hidden by another."""
    with suppress(OSError):
        run.write_result(result)
