"""Which images an epoch has, by sampler; what a sampler must return."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from crgan_cli.data import batches as module
from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.data.levels import shrink_images
from crgan_cli.data.samplers import (
    Balanced,
    ImageSampler,
    Shuffle,
    draw_order,
    draw_rounds,
    require_repeatable,
)
from crgan_cli.errors import UserError
from crgan_cli.system.distributed.world import World, as_world

CPU = torch.device("cpu")
UNEQUAL = torch.tensor([0] * 9 + [4, 4, 4, 4] + [7])  # 14 images of three classes, not 0 to 2
UNEVEN = torch.tensor([1, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0])  # 11 images: no multiple of three


class Chosen(ImageSampler):
    """What a test says."""

    def __init__(self, choose: Callable[[Tensor, torch.Generator], object]) -> None:
        self.choose = choose

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self.choose(labels, generator)  # type: ignore[return-value]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(y: Tensor) -> Images:
    """Image i is filled with i."""
    x = torch.arange(len(y), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return Images(x.contiguous(), y)


# --- shuffle --------------------------------------------------------------------------------------


def test_shuffle_draws_what_was_drawn_before_there_were_samplers() -> None:
    """Order, flips and offsets of epoch 2 of seed 5, written out."""
    drawn = BatchSampler(UNEQUAL, 7, seed=5, flip=True, device=CPU, slack=(3, 4), sampler=Shuffle())
    (word,) = np.random.SeedSequence([5, 2]).generate_state(1, np.uint64)
    generator = seeded(int(word) >> 1)
    order = torch.randperm(14, generator=generator)
    flips = torch.randint(0, 2, (14,), generator=generator)
    offsets = [torch.randint(0, end, (14,), generator=generator) for end in (4, 5)]
    for batch, rows in ((4, slice(0, 7)), (5, slice(7, 14))):
        positions, places = drawn[batch]
        assert torch.equal(positions, (order + 14 * flips)[rows])
        assert torch.equal(places, torch.stack(offsets, 1)[rows])


# --- balanced -------------------------------------------------------------------------------------


def test_one_image_of_a_class_is_drawn_as_often_as_five_of_the_other() -> None:
    """By hand: six images are three of each class, so the one comes three times."""
    order = Balanced().draw(torch.tensor([0, 0, 0, 1, 0, 0]), seeded()).tolist()
    counts = Counter(order)
    assert counts.pop(3) == 3
    assert list(counts.values()) == [1, 1, 1]
    assert all((3 in order[i : i + 2]) and order[i : i + 2] != [3, 3] for i in (0, 2, 4))


@pytest.mark.parametrize("labels", [UNEQUAL, UNEVEN, torch.arange(5), torch.arange(40) % 4 // 3])
@pytest.mark.parametrize("seed", range(3))
def test_classes_and_their_images_come_in_turn(labels: Tensor, seed: int) -> None:
    order = Balanced().draw(labels, seeded(seed))
    assert order.shape == labels.shape
    classes = labels.unique().tolist()
    drawn = labels[order].tolist()
    for start in range(0, len(drawn) - len(classes) + 1, len(classes)):
        assert sorted(drawn[start : start + len(classes)]) == classes
    counts = Counter(drawn).values()
    assert max(counts) - min(counts) <= 1
    for label in classes:
        members = (labels == label).nonzero().flatten().tolist()
        seen = [image for image in order.tolist() if labels[image] == label]
        for start in range(0, len(seen), len(members)):
            part = seen[start : start + len(members)]
            assert len(set(part)) == len(part)
        assert set(seen) <= set(members)


def test_another_epoch_has_another_part_of_a_large_class() -> None:
    drawn = BatchSampler(UNEQUAL, 14, seed=1, flip=False, device=CPU, sampler=Balanced())
    epochs = [frozenset(drawn[epoch][0].tolist()) & set(range(9)) for epoch in range(20)]
    assert {len(part) for part in epochs} == {4, 5}  # a third of 14 images, of 9
    assert len(set(epochs)) > 10
    assert frozenset().union(*epochs) == set(range(9))


def test_which_class_has_one_more_is_drawn() -> None:
    epochs = [UNEVEN[Balanced().draw(UNEVEN, seeded(seed))].bincount() for seed in range(12)]
    assert {tuple(counts.tolist()) for counts in epochs} == {(3, 4, 4), (4, 3, 4), (4, 4, 3)}


def test_rounds_are_orders_that_differ_and_each_order_comes_alike_often() -> None:
    """Of 6,000 orders of three, each of the six about 1,000 times, with a deviation of 29."""
    rounds = draw_rounds(3, 6000, seeded()).view(-1, 3)
    counts = Counter(map(tuple, rounds.tolist()))
    assert len(counts) == 6
    assert all(850 < count < 1150 for count in counts.values())


def test_the_log_says_how_often() -> None:
    assert Balanced().describe(UNEQUAL) == (
        "3 classes of 1 to 9 images; an epoch of 14 images shows each class 4 to 5 times, an image "
        "of the smallest class up to 5 times"
    )
    assert Balanced().describe(torch.arange(12) % 3) == (
        "3 classes of 4 images; an epoch of 12 images shows each class 4 times"
    )
    assert Shuffle().describe(UNEQUAL) == ""


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_a_streamed_set_gives_the_batches_of_one_on_the_device(
    monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    options = {"batch_size": 3, "seed": 3, "device": CPU, "flip": flip, "sampler": Balanced()}
    on_device = Batches(images(UNEQUAL), **options)
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    streamed = Batches(images(UNEQUAL), **options)
    for index in (0, 1, 2, 9, 4):
        for ours, theirs in zip(streamed[index], on_device[index], strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
        _, y = on_device[index]
        assert y is not None
        if index != 9:  # a batch of three from a multiple of three on
            assert sorted(y.tolist()) == [0, 4, 7]


def test_processes_share_the_batches_of_one() -> None:
    options = {"seed": 0, "flip": True, "device": CPU, "sampler": Balanced()}
    alone = BatchSampler(UNEQUAL, 4, **options)
    parts = []
    for rank in range(2):
        with as_world(World(rank, 2)):
            parts.append(BatchSampler(UNEQUAL, 4, **options))
    for index in (5, 0, 2):
        assert torch.equal(torch.cat([part[index][0] for part in parts]), alone[index][0])


def test_each_part_is_drawn_from_its_own_labels() -> None:
    seen: list[list[list[int]]] = []

    def choose(labels: Tensor, _: torch.Generator) -> Tensor:
        seen.append(labels.tolist())
        return torch.arange(len(labels)).flip(0)

    y = torch.tensor([[0, 1], [1, 1], [5, 0], [6, 0], [7, 0]])
    drawn = BatchSampler(y, 2, seed=0, flip=False, device=CPU, parts=(2, 3), sampler=Chosen(choose))
    assert [drawn[index][0].tolist() for index in range(4)] == [[1, 0], [4, 3], [1, 0], [4, 3]]
    assert seen == [y[:2].tolist(), y[2:].tolist()] * 2


def test_a_lower_resolution_has_the_classes_of_the_whole_one() -> None:
    full = images(UNEQUAL)
    low = shrink_images(full, 2, "digest")
    for batch_size in (3, 6):
        options = {"batch_size": batch_size, "seed": 0, "device": CPU, "flip": False}
        one, other = (Batches(each, **options, sampler=Balanced()) for each in (full, low))
        for index in range(2):
            x, y = other[index]
            assert y is not None
            assert sorted(y.tolist()) == sorted([0, 4, 7] * (batch_size // 3))
            assert x.shape[2:] == (2, 2)
            assert torch.equal(x[:, 0, 0, 0], one[index].x[:, 0, 0, 0])


# --- what a sampler may not do --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([0, 1, 2], "it returned a list"),
        (torch.arange(2), r"it returned int64 of shape \(2,\)"),
        (torch.zeros(3, 1, dtype=torch.int64), r"it returned int64 of shape \(3, 1\)"),
        (torch.zeros(3), r"it returned float32 of shape \(3,\)"),
        (torch.ones(3, dtype=torch.bool), r"it returned bool of shape \(3,\)"),
        (torch.tensor([1, 2, 3]), "they are from 1 to 3"),
        (torch.tensor([0, -1, 2]), "they are from -1 to 2"),
    ],
    ids=["list", "short", "column", "float", "mask", "large", "negative"],
)
def test_what_is_no_order_is_refused_by_the_name_of_its_class(order: object, said: str) -> None:
    expected = r"The sampler Chosen: draw must return 3 positions from 0 to 2: shape \(3,\), int64,"
    with pytest.raises(UserError, match=f"^{expected} and {said}.$"):
        draw_order(Chosen(lambda labels, generator: order), torch.zeros(3), seeded())


def test_other_integers_are_positions_too() -> None:
    order = torch.tensor([2, 2, 0], dtype=torch.int32)
    drawn = draw_order(Chosen(lambda labels, generator: order), torch.zeros(3), seeded())
    assert (drawn.dtype, drawn.tolist()) == (torch.int64, [2, 2, 0])


def test_a_sampler_with_a_state_or_other_random_numbers_is_refused() -> None:
    turns = iter(range(2))
    rolled = Chosen(lambda labels, _: torch.arange(len(labels)).roll(next(turns)))
    elsewhere = Chosen(lambda labels, _: torch.randperm(len(labels)))
    for sampler in (rolled, elsewhere):
        with pytest.raises(UserError, match=r"draw all random numbers with generator=generator\.$"):
            require_repeatable(sampler, torch.zeros(50))
    require_repeatable(Shuffle(), torch.zeros(50))
    require_repeatable(Balanced(), UNEQUAL)


def test_balanced_refuses_attributes_and_a_single_class() -> None:
    with pytest.raises(UserError, match=r"needs one class per image, and these have 2 attributes"):
        Balanced().draw(torch.zeros(5, 2, dtype=torch.int64), seeded())
    with pytest.raises(UserError, match=r"all training images are of one\. Type sampler=shuffle"):
        Balanced().draw(torch.zeros(5, dtype=torch.int64), seeded())
