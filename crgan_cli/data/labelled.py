"""Data sets with classes, of which only some may be used. Published ones can be resized."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from crgan_cli.data.dataset import Dataset, DatasetInfo, Split
from crgan_cli.data.images import Images
from crgan_cli.data.resize import resize_images
from crgan_cli.errors import UserError, unknown_name


@dataclass(kw_only=True, eq=False)
class LabelledDataset(Dataset):
    """Images of which each has a class, whose name is in `class_names` after `read`."""

    only_classes: list[str | int] = field(default_factory=list)  # empty: all

    @property
    def described(self) -> str:
        """The name, which classes of it, and another resolution than its own, for protocols."""
        only = ",".join(map(str, self.only_classes))
        classes = f" ({only})" if only else ""
        return f"{self.name}{classes}{self._describe_size()}"

    def _describe_size(self) -> str:
        """Say what was done to a published set of another resolution, with a space; else ""."""
        facts, size = self.facts, "{}x{}".format(*self.sides)
        if facts is None or self.resolution == facts.resolution:
            return ""
        if self.resolution == facts.inside_border:
            return f" ({size}, without a border)"
        return f" (resized from {facts.resolution}x{facts.resolution} to {size}, Lanczos)"

    def _resize(self, images: Images) -> Images:
        """Bring images of a published set from its own resolution to that of the YAML."""
        if self.facts is None:
            return images
        if self.resolution == self.facts.inside_border:
            border = (self.facts.resolution - self.resolution) // 2
            inside = slice(border, border + self.resolution)
            return Images(images.x[:, :, inside, inside], images.y)
        return resize_images(images, self.resolution)

    def get_facts(self) -> DatasetInfo | None:
        """Return the facts; with `only_classes`, of any number of classes."""
        facts = super().get_facts()
        if facts is None:
            return None
        classes = self.classes if self.only_classes else facts.classes
        return facts._replace(classes=classes, resizable=True)

    def require_facts(self) -> None:
        """Also raise UserError unless `classes` is the number of `only_classes`."""
        super().require_facts()
        only = list(map(str, self.only_classes))
        if only and (len(set(only)) < len(only) or self.classes not in (0, len(only))):
            raise UserError(
                f"dataset.only_classes=[{','.join(only)}] must name dataset.classes={self.classes} "
                f"classes, each once. Type dataset.classes={len(set(only))}, or "
                "dataset.classes=0 to ignore which is which."
            )

    def renumber(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names as a run knows them; those of `only_classes` are numbered as typed."""
        return names if self.only_classes else super().renumber(names)

    def read_used(self, split: Split) -> Images:
        """Return the images of `only_classes`, numbered as typed, at the resolution of the YAML."""
        return self._resize(self._choose_classes(self.read(split)))

    def _choose_classes(self, images: Images) -> Images:
        """Return the images of `only_classes`, numbered as these are typed."""
        if not self.only_classes:
            return images
        names = type(self).class_names or self.class_names  # those of the class are never changed
        self.class_names = only = self.list_classes(names)
        numbers = torch.full((len(names),), -1).index_put(
            (torch.tensor([names.index(name) for name in only]),), torch.arange(len(only))
        )
        y = numbers[images.y]
        return Images(images.x[y >= 0], y[y >= 0])

    def list_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return `only_classes`, as typed, or all `names`. UserError if one is not among these."""
        only = tuple(map(str, self.only_classes))
        if unknown := [name for name in only if name not in names]:
            raise UserError(unknown_name("class", unknown[0], names, where="dataset.only_classes"))
        return only or tuple(names)
