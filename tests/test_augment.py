"""T by hand, and the properties that the discriminator's consistency rests on."""

import pytest
import torch
from nosync import NoSync
from torch import Tensor

from crgan_cli.augment import Augment, Chain, Cutout, FlipShift, GaussianNoise
from crgan_cli.errors import UserError
from crgan_cli.types import Batch

ALL = {
    "flip_shift": FlipShift(shift=2, flip=0.5, padding="reflect"),
    "flip_shift_zero": FlipShift(shift=2, flip=0.5, padding="zero"),
    "gaussian_noise": GaussianNoise(std=0.1),
    "cutout": Cutout(size=3),
    "chain": Chain(
        cutout=Cutout(size=3), flip_shift=FlipShift(shift=1, flip=0.5, padding="reflect")
    ),
}


@pytest.fixture(params=ALL, ids=str)
def T(request: pytest.FixtureRequest) -> Augment:
    return ALL[request.param]


def ramp(n: int = 1, side: int = 4) -> Tensor:
    """Images whose pixel values are their own positions, 1 to side^2."""
    return torch.arange(1.0, side * side + 1).view(1, 1, side, side).repeat(n, 3, 1, 1)


def moved(image: Tensor, dy: int, dx: int, *, flip: bool, mode: str) -> Tensor:
    """The shift written with torch's own padding: flip first, then move down by dy, right by dx."""
    pad, side = 2, image.shape[-1]
    image = image.flip(-1) if flip else image
    mode = {"reflect": "reflect", "zero": "constant"}[mode]
    padded = torch.nn.functional.pad(image, (pad,) * 4, mode=mode)
    return padded[..., pad - dy : pad - dy + side, pad - dx : pad - dx + side]


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_flip_shift_makes_all_its_images_and_no_other(mode: str) -> None:
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
        T.require(8)
    T.require(16)


def test_gradients_reach_the_pixels(T: Augment) -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    T(Batch(x)).x.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_nothing_waits_for_the_host(T: Augment) -> None:
    x = torch.rand(4, 3, 8, 8)
    with NoSync():
        T(Batch(x))
