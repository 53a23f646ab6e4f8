"""T by hand, and the properties that the discriminator's consistency rests on."""

import copy
from typing import Literal

import pytest
import torch
from support.nosync import NoSync
from torch import Tensor
from torch.nn.functional import pad

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment, Chain, Cutout, FlipShift, GaussianNoise
from crgan_cli.gan.types import Batch
from crgan_cli.system import rng
from crgan_cli.system.distributed.world import World

ALL = {
    "flip_shift": FlipShift(shift=2, flip=0.5, padding="reflect"),
    "flip_shift_zero": FlipShift(shift=2, flip=0.5, padding="zero"),
    "gaussian_noise": GaussianNoise(std=0.1),
    "cutout": Cutout(size=3),
    "chain": Chain(
        cutout=Cutout(size=3), flip_shift=FlipShift(shift=1, flip=0.5, padding="reflect")
    ),
}

Padding = Literal["reflect", "zero"]
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)


@pytest.fixture(params=ALL, ids=str)
def T(request: pytest.FixtureRequest) -> Augment:
    return ALL[request.param]


def ramp(n: int = 1, side: int = 4) -> Tensor:
    """Images whose pixel values are their own positions, 1 to side^2."""
    return torch.arange(1.0, side * side + 1).view(1, 1, side, side).repeat(n, 3, 1, 1)


def moved(image: Tensor, dy: int, dx: int, *, flip: bool, mode: str) -> Tensor:
    """The shift written with torch's own padding: flip first, then move down by dy, right by dx."""
    reach, (h, w) = 2, image.shape[-2:]
    image = image.flip(-1) if flip else image
    mode = {"reflect": "reflect", "zero": "constant"}[mode]
    padded = pad(image, (reach,) * 4, mode=mode)
    return padded[..., reach - dy : reach - dy + h, reach - dx : reach - dx + w]


def pictures(n: int, layout: torch.memory_format, h: int = 6, w: int = 5) -> Tensor:
    """Images that differ in every pixel, higher than they are wide."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, h, w, generator=generator, dtype=torch.float64)
    return x.contiguous(memory_format=layout)


@LAYOUTS
@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_flip_shift_is_its_definition_image_by_image(
    monkeypatch: pytest.MonkeyPatch, mode: Padding, layout: torch.memory_format
) -> None:
    moves = [(dy, dx, flip) for dy in range(5) for dx in range(5) for flip in (0.1, 0.9)]
    monkeypatch.setattr(rng, "randint", lambda *_, **__: torch.tensor([m[:2] for m in moves]))
    monkeypatch.setattr(rng, "rand", lambda *_, **__: torch.tensor([m[2] for m in moves]))
    x = pictures(len(moves), layout)
    out = FlipShift(shift=2, flip=0.5, padding=mode).transform(x)
    for image, result, (dy, dx, flip) in zip(x, out, moves, strict=True):
        expected = moved(image[None], dy - 2, dx - 2, flip=flip < 0.5, mode=mode)[0]
        assert torch.equal(result, expected)


def test_a_shift_by_more_than_half_an_image_stays_inside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rng, "randint", lambda *_, **__: torch.tensor([[0, 6], [6, 0]]))
    x = ramp(2)
    out = FlipShift(shift=3, flip=0.0, padding="reflect").transform(x)
    padded = pad(x, (3,) * 4, mode="reflect")
    assert torch.equal(out[0], padded[0, :, 6:10, 0:4])  # up by 3, right by 3
    assert torch.equal(out[1], padded[1, :, 0:4, 6:10])


@LAYOUTS
def test_cutout_is_its_definition_image_by_image(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format
) -> None:
    centres = [(row, column) for row in range(6) for column in range(5)]
    drawn = iter(torch.tensor(centres).unbind(1))
    monkeypatch.setattr(rng, "randint", lambda *_, **__: next(drawn))
    x = pictures(len(centres), layout)
    expected = x.clone()
    for image, (row, column) in zip(expected, centres, strict=True):
        image[:, max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = 0
    assert torch.equal(Cutout(size=4).transform(x), expected)


@LAYOUTS
def test_noise_is_added_pixel_by_pixel_as_it_was_drawn(layout: torch.memory_format) -> None:
    x = pictures(4, layout)
    torch.manual_seed(2)
    out = GaussianNoise(std=0.25).transform(x)
    torch.manual_seed(2)
    torch.testing.assert_close(out, x + 0.25 * torch.randn(4, 3, 6, 5, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_flip_shift_makes_all_its_images_and_no_other(mode: Padding) -> None:
    image = ramp()
    allowed = {
        tuple(moved(image, dy, dx, flip=flip, mode=mode).flatten().tolist())
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        for flip in (False, True)
    }
    torch.manual_seed(0)
    out = FlipShift(shift=2, flip=0.5, padding=mode)(Batch(ramp(2000))).x
    assert {tuple(each.flatten().tolist()) for each in out} == allowed


def test_flip_alone_and_shift_alone() -> None:
    image = ramp(5)
    assert torch.equal(FlipShift(0, 1.0, "reflect")(Batch(image)).x, image.flip(-1))
    assert torch.equal(FlipShift(0, 0.0, "zero")(Batch(image)).x, image)


def test_cutout_hides_squares_around_every_centre() -> None:
    torch.manual_seed(0)
    out = Cutout(size=3)(Batch(ramp(3000))).x[:, 0]
    found = {tuple((each == 0).flatten().tolist()) for each in out}
    expected = set()
    for centre in range(16):
        hidden = torch.zeros(4, 4, dtype=torch.bool)
        row, column = divmod(centre, 4)
        hidden[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        expected.add(tuple(hidden.flatten().tolist()))
    assert found == expected


@pytest.mark.parametrize(
    ("sides", "size", "shift"), [((8, 4), 2, 2), ((4, 8), 2, 2), ((4, 2), 1, 1)]
)
def test_lengths_are_pixels_along_both_sides_of_a_rectangle_and_shrink_with_the_shorter_one(
    sides: tuple[int, int], size: int, shift: int
) -> None:
    torch.manual_seed(0)
    x = torch.ones(2000, 1, *sides)
    cutout, move = Cutout(size=2), FlipShift(shift=2, flip=0.0, padding="zero")
    for T in (cutout, move):
        T.set_full_side(4)
    assert (cutout.transform(x) == 0).sum((1, 2, 3)).max() == size**2
    seen = move.transform(x)[:, 0]
    zeros = [(seen.amax(dim) == 0).sum(1).max() for dim in (2, 1)]  # rows and columns
    assert zeros == [shift, shift]


def test_noise_has_the_stated_standard_deviation() -> None:
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 32, 32)
    assert GaussianNoise(std=0.25)(Batch(x)).x.std().item() == pytest.approx(0.25, rel=0.01)


def test_every_image_gets_its_own_draw(T: Augment) -> None:
    torch.manual_seed(0)
    out = T(Batch(ramp(64, side=8))).x
    assert len({tuple(each.flatten().tolist()) for each in out}) > 8


def test_shape_type_and_labels_stay(T: Augment) -> None:
    y = torch.arange(6)
    out = T(Batch(torch.rand(6, 3, 8, 8, dtype=torch.float64), y))
    assert out.x.shape == (6, 3, 8, 8)
    assert out.x.dtype == torch.float64
    assert out.y is y


@pytest.mark.parametrize("T", [FlipShift(8, 0.5, "zero"), Chain(cutout=Cutout(size=9))], ids=str)
def test_what_would_leave_nothing_of_an_image_is_refused(T: Augment) -> None:
    with pytest.raises(
        UserError, match=r"images of 8 pixels.*Give at most augment\.s(hift=7|ize=8);"
    ):
        T.set_full_side(8)
    T.set_full_side(16)


def test_gradients_reach_the_pixels(T: Augment) -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    T(Batch(x)).x.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_nothing_waits_for_the_host(T: Augment) -> None:
    x = torch.rand(4, 3, 8, 8)
    with NoSync():
        T(Batch(x))


@LAYOUTS
def test_the_order_of_the_pixels_in_memory_stays_and_changes_nothing(
    T: Augment, layout: torch.memory_format
) -> None:
    results = []
    for order in (torch.contiguous_format, layout):
        torch.manual_seed(3)
        results.append(T(Batch(pictures(8, order))).x)
    assert results[1].is_contiguous(memory_format=layout)
    assert torch.equal(*results)


def test_pixels_that_lie_apart_are_found(T: Augment) -> None:
    apart = pictures(8, torch.contiguous_format, 6, 10)[..., ::2]
    results = []
    for x in (apart, apart.contiguous()):
        torch.manual_seed(3)
        results.append(T(Batch(x)).x)
    assert torch.equal(*results)


def test_the_same_seed_draws_the_same(T: Augment) -> None:
    results = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        results.append(T(Batch(pictures(8, torch.contiguous_format))).x)
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_two_processes_transform_their_parts_as_one_would_the_whole(
    T: Augment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pictures(8, torch.contiguous_format)
    torch.manual_seed(4)
    expected = T(Batch(whole)).x
    parts = []
    for rank in range(2):
        monkeypatch.setattr("crgan_cli.system.distributed.world._world", World(rank, 2, rank))
        torch.manual_seed(4)
        parts.append(T(Batch(whole.chunk(2)[rank])).x)
    assert torch.equal(torch.cat(parts), expected)


def test_what_is_kept_for_speed_is_no_state(T: Augment) -> None:
    T(Batch(ramp(2, side=8)))
    assert T.state_dict() == {}
    twin = copy.deepcopy(T)
    for x in (ramp(2, side=8), ramp(3, side=6)):
        results = []
        for each in (T, twin):
            torch.manual_seed(5)
            results.append(each(Batch(x)).x)
        assert torch.equal(*results)


VIEWS = {"view", "expand", "unbind", "slice", "select", "permute", "unsqueeze", "detach"}


@LAYOUTS
@pytest.mark.parametrize(
    ("name", "most"),
    [("flip_shift", 9), ("flip_shift_zero", 11), ("gaussian_noise", 2), ("cutout", 6)],
)
def test_few_kernels(name: str, most: int, layout: torch.memory_format) -> None:
    x = pictures(4, layout)
    ALL[name](Batch(x))  # makes the tables
    with NoSync() as watch:
        ALL[name](Batch(x))
    kernels = [kernel for kernel, _ in watch.seen if kernel not in VIEWS]
    assert len(kernels) <= most, kernels
