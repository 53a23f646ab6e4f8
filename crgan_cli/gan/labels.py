"""The labels of a data set in groups: classes that exclude one another, or attributes.

A data set that is joined from several has a group for each, and a row knows the labels of one group
only: the mask vector of Choi et al. 2018 (arXiv:1711.09020) section 3.3.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from crgan_cli.errors import UserError


class LabelGroup(NamedTuple):
    """Labels that are known together. Of classes an image has one, of attributes any number."""

    kind: Literal["classes", "attributes"]
    names: tuple[str, ...]
    exclusive: tuple[tuple[str, ...], ...] = ()  # attributes of which an image has at most one

    def rivals(self, name: str) -> set[str]:
        """The labels that an image with this one cannot have."""
        sets = [self.names] if self.kind == "classes" else self.exclusive
        return {each for names in sets if name in names for each in names} - {name}

    def rename(self, shared: Collection[str], part: str) -> "LabelGroup":
        """The same labels, those with `shared` names called PART.NAME."""

        def spell(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(f"{part}.{name}" if name in shared else name for name in names)

        return self._replace(names=spell(self.names), exclusive=tuple(map(spell, self.exclusive)))


def count_names(groups: Iterable[LabelGroup]) -> Counter[str]:
    """How many labels have each name."""
    return Counter(name for group in groups for name in group.names)


class Labels:
    """The groups of labels, and their two encodings.

    As a data set stores them, y is (N,) class ids if there is one group of classes. Else it is
    (N, planes), zeros and ones: a column per label, then with several groups a column per group
    that says whether a row knows its labels. Encoded, y is (N, planes) for all data sets.
    """

    def __init__(self, groups: Sequence[LabelGroup]) -> None:
        """Raise UserError if two labels have one name: what is drawn is chosen by it."""
        self.groups = tuple(groups)
        if twice := [name for name, count in count_names(groups).items() if count > 1]:
            raise UserError(f"several labels are called {', '.join(twice)}. Rename them.")
        self.sizes = [len(group.names) for group in groups]
        self.size = sum(self.sizes)
        """Number of labels: the outputs of a classifier."""
        self.planes = self.size + (len(groups) if len(groups) > 1 else 0)
        """Number of columns of an encoded y."""

    @classmethod
    def from_settings(cls, dataset: Mapping[str, Any], class_names: Sequence[str] = ()) -> "Labels":
        """The labels of a data set, by its settings. Without `class_names` classes are numbered.

        A name that several parts of a data set have becomes PART.NAME. Raise UserError if a part
        has no labels.
        """
        parts = dataset.get("parts") or {"": dataset}
        sizes = [
            len(part.get("attributes") or ()) or int(part.get("classes") or 0)
            for part in parts.values()
        ]
        known = class_names if len(class_names) == sum(sizes) else ()  # of all parts, in order
        ends = itertools.accumulate(sizes)
        groups = [
            cls._group_from_settings(part, known[end - size : end])
            for part, size, end in zip(parts.values(), sizes, ends, strict=True)
        ]
        shared = {name for name, count in count_names(groups).items() if count > 1}
        return cls([group.rename(shared, part) for group, part in zip(groups, parts, strict=True)])

    @staticmethod
    def _group_from_settings(part: Mapping[str, Any], class_names: Sequence[str]) -> LabelGroup:
        if attributes := part.get("attributes"):
            exclusive = tuple(map(tuple, part.get("exclusive") or ()))
            return LabelGroup("attributes", tuple(attributes), exclusive)
        classes = int(part.get("classes") or 0)
        if not classes:
            raise UserError(
                "task=stargan changes the labels of images, and this data set has none. Type "
                "dataset=demo_attributes, dataset=attributes dataset.root=PATH, or "
                "dataset=folder dataset.root=PATH dataset.classes=N for a sub-folder per domain."
            )
        names = class_names if len(class_names) == classes else map(str, range(classes))
        return LabelGroup("classes", tuple(names))

    def encode(self, y: Tensor) -> Tensor:
        """(N,) class ids, or (N, planes) -> (N, planes) float32: 1 for each label that a row has.

        Labels that a row does not know are 0.
        """
        if y.ndim == 1:
            return (y[:, None] == torch.arange(self.size, device=y.device)).float()
        y = y.float()
        if len(self.groups) == 1:
            return y
        known = y[:, self.size :]
        spread = torch.cat(
            [known[:, i : i + 1].expand(-1, size) for i, size in enumerate(self.sizes)], 1
        )
        return torch.cat([y[:, : self.size] * spread, known], 1)

    def column(self, name: str) -> int:
        """The column of a label in encoded labels."""
        return [each for group in self.groups for each in group.names].index(name)

    def switch(self, y: Tensor, changes: Mapping[str, bool]) -> Tensor:
        """Encoded labels (N, planes) with labels of one group switched on or off.

        What a label that is switched on excludes is switched off. Of several groups, the rows then
        know this one only.
        """
        y = y.clone()
        number = next(i for i, group in enumerate(self.groups) if {*changes} <= {*group.names})
        group = self.groups[number]
        for name, value in changes.items():
            y[:, self.column(name)] = float(value)
            for rival in group.rivals(name) if value else ():
                y[:, self.column(rival)] = 0.0
        if len(self.groups) > 1:
            first = self.column(group.names[0])
            kept = y[:, first : first + len(group.names)].clone()
            y.zero_()
            y[:, first : first + len(group.names)] = kept
            y[:, self.size + number] = 1.0
        return y

    def decide(self, logits: Tensor) -> Tensor:
        """What a classifier's logits (N, size) say, as a data set stores labels.

        Of classes the likeliest, of attributes all that are likelier than not; all groups count as
        known.
        """
        if [group.kind for group in self.groups] == ["classes"]:
            return logits.argmax(1)
        parts = [
            torch.zeros_like(part).scatter(1, part.argmax(1, keepdim=True), 1)
            if group.kind == "classes"
            else (part > 0).to(part)
            for part, group in zip(logits.split(self.sizes, 1), self.groups, strict=True)
        ]
        known = logits.new_ones(len(logits), self.planes - self.size)
        return torch.cat([*parts, known], 1).long()

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """How far a classifier's logits (N, size) are from encoded labels (N, planes), ().

        Per row: the cross entropy of classes, or the sum of the binary ones of attributes, of the
        groups that the row knows. Then the mean over rows, as in yunjey/stargan (solver.py).
        """
        total = logits.new_zeros(len(logits))
        targets, known = y.split([self.size, y.shape[1] - self.size], 1)
        parts = zip(logits.split(self.sizes, 1), targets.split(self.sizes, 1), strict=True)
        for i, ((group_logits, target), group) in enumerate(zip(parts, self.groups, strict=True)):
            if group.kind == "classes":
                rows = cross_entropy(group_logits, target, reduction="none")
            else:
                each = binary_cross_entropy_with_logits(group_logits, target, reduction="none")
                rows = each.sum(1)
            total = total + (rows if len(self.groups) == 1 else rows * known[:, i])
        return total.mean()
