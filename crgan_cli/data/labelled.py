"""Data sets with classes, of which only some may be used."""

from dataclasses import dataclass, field

import torch

from crgan_cli.data.images import Dataset, DatasetInfo, Images, Split
from crgan_cli.errors import UserError, unknown_name


@dataclass(kw_only=True, eq=False)
class LabelledDataset(Dataset):
    """Images of which each has a class, whose name is in `class_names` after `read`."""

    only_classes: list[str | int] = field(default_factory=list)  # empty: all

    @property
    def described(self) -> str:
        """The name, and which classes of it, for protocols."""
        only = ",".join(map(str, self.only_classes))
        return f"{self.name} ({only})" if only else self.name

    def get_facts(self) -> DatasetInfo | None:
        """Return the facts; with `only_classes`, of any number of classes."""
        facts = super().get_facts()
        return facts._replace(classes=self.classes) if facts and self.only_classes else facts

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
        """Return the images of `only_classes`, numbered as these are typed."""
        images = self.read(split)
        if not self.only_classes:
            return images
        only = tuple(map(str, self.only_classes))
        names = type(self).class_names or self.class_names  # those of the class are never changed
        if unknown := [name for name in only if name not in names]:
            raise UserError(unknown_name("class", unknown[0], names, where="dataset.only_classes"))
        self.class_names = only
        numbers = torch.full((len(names),), -1).index_put(
            (torch.tensor([names.index(name) for name in only]),), torch.arange(len(only))
        )
        y = numbers[images.y]
        return Images(images.x[y >= 0], y[y >= 0])
