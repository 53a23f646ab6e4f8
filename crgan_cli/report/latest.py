"""`latest`: the newest run, wherever a command takes a run."""

import sys
from pathlib import Path

from crgan_cli.errors import UserError
from crgan_cli.runs.folder import OUTPUTS
from crgan_cli.runs.started import read_start
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.paths import expand_home

LATEST = "latest"


def resolve_run(text: str) -> Path:
    """Return the path of a run or a checkpoint as typed, with the newest run for `latest`.

    Say on stderr which run that is. A file or folder of that name here comes first, and that is
    said too; `./latest` is it alone. Raises UserError if there is no run.
    """
    path = expand_home(text)
    if text != LATEST and not text.startswith(f"{LATEST}/"):
        return path
    if Path(LATEST).exists():
        found, note = Path(LATEST), f"{Path(LATEST).absolute()}, which is here: not the newest run"
    else:
        found = find_latest(OUTPUTS)
        note = str(found)
    if is_main():
        print(f"{LATEST}: {note}", file=sys.stderr, flush=True)
    return found.joinpath(*path.parts[1:])


def find_latest(outputs: Path) -> Path:
    """Return the run below a folder that was started last. Raises UserError if there is none."""
    from crgan_cli.report.collect import find_runs  # brings Hydra

    try:
        folders = find_runs(outputs)
    except UserError:
        raise UserError(
            f"{LATEST} is the newest run below {outputs.absolute()}, and no run is there. Give the "
            "folder of a run, go to the folder from which it was trained, or train one: crgan "
            "train experiment=demo"
        ) from None
    return max(folders, key=lambda folder: (read_start(folder), folder))
