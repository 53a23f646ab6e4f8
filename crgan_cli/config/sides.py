"""The height and width of images, from `dataset.resolution`: a side, or [HEIGHT,WIDTH]."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from crgan_cli.errors import UserError


class Sides(NamedTuple):
    """Height and width in pixels. As text "64" of squares, else height x width: "96x64"."""

    height: int
    width: int

    @classmethod
    def read(cls, resolution: int | Sequence[int]) -> Self:
        """Return the sides that a `resolution` means.

        A pair of equal sides is a UserError, so that equal images have one way to be typed: runs,
        caches and reports compare settings.
        """
        if isinstance(resolution, cls):
            return resolution
        if isinstance(resolution, int):
            return cls(resolution, resolution)
        height, width = resolution
        if height == width:
            raise UserError(
                f"dataset.resolution=[{height},{width}] is a square. "
                f"Type dataset.resolution={height}."
            )
        return cls(int(height), int(width))

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height == self.width

    @property
    def typed(self) -> str:
        """The `dataset.resolution` of such images, as a user types it."""
        return str(self.height) if self.is_square else f"[{self.height},{self.width}]"

    def __floordiv__(self, by: int) -> "Sides":
        return Sides(self.height // by, self.width // by)

    def are_multiples(self, of: int) -> bool:
        """Whether both sides are multiples of a number."""
        return self.height % of == 0 and self.width % of == 0

    def __str__(self) -> str:
        return str(self.height) if self.is_square else f"{self.height}x{self.width}"
