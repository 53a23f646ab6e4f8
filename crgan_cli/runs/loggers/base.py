"""What a logger of a run does."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
from torch import Tensor

from crgan_cli.errors import UserError, not_available
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.atomic import write_json

Plain = bool | int | float | str


class Logger:
    """Shows a run somewhere. Whatever one raises leaves it out of the run, which goes on.

    A run calls `open` first, `finish` if it takes its last step, and `close` in any case. What is
    not of interest to a logger stays as it is here: nothing.
    """

    package: ClassVar[str] = ""
    """The package that it needs, and the extra of crgan that brings it; "" for none."""

    def require_package(self) -> None:
        """Raise UserError if the package is not installed. Imports nothing."""
        if self.package and find_spec(self.package) is None:
            raise UserError(
                not_available(
                    f"logger={self.package}",
                    f"the package {self.package} is not installed",
                    f'Type pip install "crgan[{self.package}]", or choose another logger.',
                )
            )

    def open(self, run: RunDir, *, step: int) -> None:
        """Begin a session of a run that is at `step`. metrics.jsonl holds no line after it."""

    def write(self, line: Mapping[str, object], scalars: Mapping[str, float], step: int) -> None:
        """Show the numbers of a step: the line of metrics.jsonl, and tag -> value."""

    def image(self, name: str, image: Tensor, step: int) -> None:
        """Show a uint8 image, (3, H, W)."""

    def text(self, name: str, text: str) -> None:
        """Show a text as a block of its own."""

    def hparams(
        self, settings: Mapping[str, object], swept: Sequence[str], metric: str | None
    ) -> None:
        """Show the settings, those in which the runs of a sweep differ, and the metric's tag."""

    def finish(self) -> None:
        """Mark the run as finished."""

    def close(self) -> None:
        """End the session: show what is still in memory."""


def plain_settings(settings: Mapping[str, object]) -> dict[str, Plain]:
    """Return the settings, with text for all that is no plain value."""
    return {
        key: value if isinstance(value, Plain) else str(value) for key, value in settings.items()
    }


def to_pixels(image: Tensor) -> np.ndarray:
    """Return a uint8 image (3, H, W) as an array (H, W, 3)."""
    return image.cpu().permute(1, 2, 0).numpy()


def read_id(run: RunDir, logger: str) -> str | None:
    """Return under which name a logger knows this run since its first session; None if none."""
    try:
        found = json.loads(run.loggers.read_text(encoding="utf-8")).get(logger)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def keep_id(run: RunDir, logger: str, name: str) -> None:
    """Keep the name for the sessions to come."""
    try:
        known = json.loads(run.loggers.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    write_json(run.loggers, {**(known if isinstance(known, dict) else {}), logger: name}, indent=2)
