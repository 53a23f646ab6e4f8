"""How a run ended, as its folder says it: finished, interrupted or failed."""

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from crgan_cli.errors import Interrupted, RunFailed, UserError
from crgan_cli.runs.folder import RunDir, shell_quoted
from crgan_cli.runs.status import Status

log = logging.getLogger(__name__)
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def primary_metric(result: dict) -> float | None:
    """The headline metric in a finished run's result.json; None without metrics."""
    if "last" not in result:
        return None
    return result["last"].get(result["protocol"]["headline"])


@contextmanager
def recording_failure(run: RunDir) -> Iterator[None]:
    """Writes how a run ended badly into its folder, and passes the error on."""
    try:
        yield
    except Interrupted as stopped:
        write_status(run, {"status": Status.INTERRUPTED, "signal": stopped.signum})
        log.info("stopped and saved; go on with: crgan train --from %s", shell_quoted(run.path))
        raise
    except KeyboardInterrupt:
        write_status(run, {"status": Status.INTERRUPTED})
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise RunFailed(
                f"writing to {run.path} failed: {error.strerror}. What was written is whole. Free "
                f"some space and go on with: crgan train --from {shell_quoted(run.path)}"
            ) from error
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


def write_status(run: RunDir, result: Mapping[str, object]) -> None:
    """Writes how a run ended, where that can be written: the error itself must come through."""
    with suppress(OSError):
        run.write_result(result)
