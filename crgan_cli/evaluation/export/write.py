"""Write an exported generator with its card and a picture, and check it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from crgan_cli.config.stored import read_stored
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.export.card import Agreement, write_card
from crgan_cli.evaluation.export.formats import Format, draw_inputs
from crgan_cli.evaluation.export.plain import Compute, make_plain, plan_export
from crgan_cli.evaluation.load import LoadedGenerator, find_run
from crgan_cli.evaluation.pictures import save_picture
from crgan_cli.evaluation.sampler import make_grid
from crgan_cli.evaluation.samples import Request, draw_request
from crgan_cli.system.atomic import explain_write_failure, write_text
from crgan_cli.system.paths import require_new_folder

TOLERANCE = 1e-5
"""The largest difference of a value: an image of 8 bits has steps of 8e-3."""

BATCHES = (3, 1)
"""Sizes that are compared. Networks are recorded with another one."""

CARD, PICTURE = "README.md", "samples.png"

Check = tuple[tuple[Tensor, ...], Tensor]
"""Inputs, and crgan's own images of them."""


def export_generator(
    model: LoadedGenerator, settings: str, kind: Format, to: str | None, folder: Path
) -> Agreement:
    """Write a generator, on the CPU, into a new folder, which appears when all is checked.

    `settings`: the YAML text of the run. Raise UserError for what cannot be exported, RunFailed if
    the file's images differ from crgan's. The generator is changed to its plain form.
    """
    plan = plan_export(model, to)
    with complete_folder(folder) as partial:
        picture = draw_picture(model, partial / PICTURE)
        inputs = [draw_inputs(plan, n, seed=n) for n in BATCHES]
        checks = [(each, plan.compute(*each)) for each in inputs]
        make_plain(plan.generator, plan.batch_norm)
        kind.write(plan, model, partial / kind.file)
        difference = measure_difference(kind.open(partial / kind.file), checks)
        if not difference <= TOLERANCE:
            raise RunFailed(
                f"the images of {kind.file} differ from crgan's by {difference:.1e}, and "
                f"{TOLERANCE:.0e} is allowed. Nothing was written. Try another format after --to."
            )
        checked = Agreement(difference, BATCHES)
        stored = read_stored(settings, str(model.path))
        write_text(partial / CARD, write_card(model, stored, plan, kind, checked, picture))
    return checked


def measure_difference(compute: Compute, checks: list[Check]) -> float:
    """Return the largest difference of a value. It is NaN if one is."""
    with torch.no_grad():
        parts = [(compute(*inputs) - images).abs().max() for inputs, images in checks]
    return float(torch.stack(parts).max())


def draw_picture(model: LoadedGenerator, path: Path) -> Path | None:
    """Draw a grid as `crgan sample` does; of a translation, copy the run's newest. None if there is
    none."""
    if model.task.has_latents:
        drawing = draw_request(model, Request(), torch.device("cpu"), whole=True)
        save_picture(make_grid(torch.cat(list(drawing.batches)), drawing.columns), path)
        return path
    run = find_run(model.path)
    newest = next(iter(run.list_samples()), None) if run else None
    if newest:
        shutil.copyfile(newest, path)
    return path if newest else None


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Provide a folder that gets its name when the body ends well, and is removed otherwise.

    Raise UserError if it cannot be made, RunFailed if what is written fails (full disk).
    """
    folder = folder.absolute()  # `.` has a name, and a folder around it, only so
    require_new_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"--out {folder} cannot be written ({error.strerror}). Give another --out."
        ) from None
    try:
        with explain_write_failure(folder):
            yield partial
            partial.chmod(0o755)  # some libraries write for their user alone
            for file in partial.iterdir():
                file.chmod(0o644)
            if folder.is_dir():  # an empty one, perhaps where the user is: it stays
                for file in partial.iterdir():
                    file.replace(folder / file.name)
            else:
                partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
