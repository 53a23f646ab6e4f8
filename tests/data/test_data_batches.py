"""Endless batches: seeded, stateless, and without repeats inside an epoch."""

import itertools

import pytest
import torch
from torch import Tensor

from crgan_cli.data import batches as module
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError

CPU = torch.device("cpu")


def numbered(count: int = 10) -> Images:
    """Image i is filled with i at the left and 100 + i at the right, and its label is i."""
    number = torch.arange(count, dtype=torch.uint8)
    x = torch.stack([number, 100 + number], dim=1).view(count, 1, 1, 2).expand(-1, 1, 2, 2)
    return Images(x.contiguous(), torch.arange(count))


def make(count: int = 10, *, batch_size: int = 3, seed: int = 0, flip: bool = False) -> Batches:
    return Batches(numbered(count), batch_size=batch_size, seed=seed, device=CPU, flip=flip)


def labels(batches: Batches, index: int) -> list[int]:
    y = batches[index].y
    assert y is not None
    return y.tolist()


def test_a_batch_is_float_in_minus_one_to_one_with_its_labels():
    x, y = make()[0]
    assert y is not None
    assert (x.dtype, x.shape, y.dtype) == (torch.float32, (3, 1, 2, 2), torch.int64)
    assert torch.allclose(x[:, 0, 0, 0], y / 127.5 - 1)


def test_no_image_twice_in_an_epoch_and_the_partial_batch_is_dropped():
    batches = make()
    for epoch in range(4):
        seen = [label for i in range(3) for label in labels(batches, 3 * epoch + i)]
        assert len(seen) == len(set(seen)) == 9


def test_epochs_differ_and_leave_out_different_images():
    batches = make()
    epochs = [
        tuple(itertools.chain(*(labels(batches, 3 * e + i) for i in range(3)))) for e in range(6)
    ]
    assert len(set(epochs)) == 6
    assert len({frozenset(epoch) for epoch in epochs}) > 1


def test_a_batch_does_not_depend_on_what_was_asked_before():
    walked, jumped = make(), make()
    for index in range(5):
        walked[index]
    assert labels(walked, 5) == labels(jumped, 5)
    assert labels(walked, 1) == labels(make(), 1)


def test_seeds_differ_and_repeat():
    first = [labels(make(50, seed=seed), 0) for seed in (0, 1, 0)]
    assert first[0] == first[2] != first[1]


def test_the_next_seed_does_not_start_with_this_seeds_next_epoch():
    assert labels(make(50, batch_size=50, seed=1), 0) != labels(make(50, batch_size=50, seed=0), 1)


def test_the_order_is_the_same_next_release():
    # a resumed run must see the batches that the interrupted one would have seen
    assert labels(make(seed=7), 4) == [8, 4, 0]


def test_batches_do_not_touch_the_default_generator_without_flip():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make()[0]
    assert torch.equal(torch.rand(3), expected)


def mirrored(x: Tensor) -> list[bool]:
    return (x[:, 0, 0, 0] > x[:, 0, 0, 1]).tolist()


def test_flip_mirrors_about_half_of_the_images_each_on_its_own():
    torch.manual_seed(0)
    x = make(100, batch_size=100, flip=True)[0].x
    assert 30 < sum(mirrored(x)) < 70
    assert not any(mirrored(make(100, batch_size=100)[0].x))


def test_flip_follows_the_default_generator():
    batches = make(100, batch_size=100, flip=True)
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(mirrored(batches[0].x))
    assert drawn[0] == drawn[2] != drawn[1]


def test_pixels_too_many_for_the_device_give_the_same_batches(monkeypatch: pytest.MonkeyPatch):
    resident = make()[4]
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    streamed = make()[4]
    assert torch.equal(resident.x, streamed.x)
    assert labels(make(), 4) == resident.y.tolist()  # pyright: ignore[reportOptionalMemberAccess]


def test_the_stored_pixels_are_not_changed():
    images = numbered()
    batches = Batches(images, batch_size=10, seed=0, device=CPU, flip=True)
    batches[0].x.zero_()
    assert torch.equal(images.x, numbered().x)


def test_a_batch_larger_than_the_set_is_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"batch of 11 images .* training set of 10"):
        make(10, batch_size=11)


def test_a_negative_index_is_a_bug():
    with pytest.raises(IndexError, match="numbered from 0"):
        make()[-1]
