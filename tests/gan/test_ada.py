"""ADA: p follows D, and each transform is the paper's."""

import math
from typing import Any

import pytest
import torch

from crgan_cli.errors import UserError
from crgan_cli.gan.ada import ADA


def ada(**changed: Any) -> ADA:
    settings = {
        "target": 0.6,
        "ramp_images": 80,
        "adjust_every": 2,
        "blit": True,
        "geometry": True,
        "colour": True,
    }
    return ADA(**{**settings, **changed})


def test_p_rises_while_d_is_too_sure_and_falls_while_it_is_not() -> None:
    T = ada()
    sure, unsure = torch.full((4,), 3.0), torch.tensor([1.0, -1.0, 2.0, -0.5])
    for _ in range(4):
        T.observe(sure)  # r_t = 1
    assert T.p.item() == pytest.approx(2 * 8 / 80)  # two changes of 2 batches of 4 images
    T.observe(sure)
    assert T.p.item() == pytest.approx(0.2)  # only every second step
    T.observe(unsure)  # r_t of both is 0.5, below 0.6
    assert T.p.item() == pytest.approx(0.1)
    for _ in range(10):
        T.observe(unsure)
    assert T.p.item() == 0  # not below
    assert T.diagnostics() == {"ada/p": T.p}
    for _ in range(60):
        T.observe(sure)
    assert T.p.item() == 1  # nor above


def test_it_goes_on_where_its_state_says() -> None:
    one, other = ada(), ada()
    for step in range(5):
        one.observe(torch.randn(4) + step)
    other.load_state_dict(one.state_dict())
    for step in range(5):
        logits = torch.randn(4) + 1 - step % 2
        one.observe(logits)
        other.observe(logits)
        assert one.p == other.p


def test_at_p_zero_images_stay_as_they_are() -> None:
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(ada().transform(x), x)


def test_blits_only_move_whole_pixels() -> None:
    T = ada(geometry=False, colour=False)
    T.p.fill_(1)
    x = torch.rand(50, 1, 8, 8)
    torch.manual_seed(0)
    moved = T.transform(x)
    for before, after in zip(x, moved, strict=True):
        distance = (after.reshape(-1, 1) - before.reshape(1, -1)).abs().min(1).values
        assert distance.max() < 1e-5  # every value was there before
    assert (moved != x).flatten(1).any(1).float().mean() > 0.9


def test_each_transform_acts_on_a_share_p_of_the_images() -> None:
    T = ada(geometry=False)
    T.p.fill_(0.25)
    torch.manual_seed(0)
    on = T.switch(torch.ones(4000), torch.zeros(4000))
    assert on.mean().item() == pytest.approx(0.25, abs=0.03)
    # two turns by chance are one with probability p
    p_turn = 1 - math.sqrt(1 - 0.25)
    assert 1 - (1 - p_turn) ** 2 == pytest.approx(0.25)


def test_colours_of_rgb_are_the_papers_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    T = ada(blit=False, geometry=False)
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64) * 2 - 1
    b, c, flip, theta, s = 0.1, 1.7, 1.0, 0.6, 0.4
    drawn = iter([b, c, flip, theta, s])
    monkeypatch.setattr(T, "switch", lambda *_: torch.tensor([next(drawn)], dtype=torch.float64))
    T.double()
    found = T.change_colours(x)
    v = torch.ones(3).double() / math.sqrt(3)
    vv, eye = torch.outer(v, v), torch.ones(3).double().diag()
    cross = torch.tensor([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]]).double()
    rotation = math.cos(theta) * (eye - vv) + math.sin(theta) * cross + vv
    y = c * (x[0].flatten(1) + b)  # brightness, contrast
    y = (eye - 2 * flip * vv) @ y
    y = rotation @ y
    y = (vv + s * (eye - vv)) @ y
    torch.testing.assert_close(found[0].flatten(1), y, rtol=1e-6, atol=1e-6)


def test_colours_of_grey_images_are_brightness_contrast_and_luma_flip() -> None:
    T = ada(blit=False, geometry=False)
    T.p.fill_(1)
    x = torch.rand(8, 1, 6, 6)
    torch.manual_seed(0)
    made = T.transform(x)
    # an affine map of each image: equal ratios of differences
    slope = (made[:, 0, 0, 1] - made[:, 0, 0, 0]) / (x[:, 0, 0, 1] - x[:, 0, 0, 0])
    offset = made[:, 0, 0, 0] - slope * x[:, 0, 0, 0]
    expected = slope.view(-1, 1, 1, 1) * x + offset.view(-1, 1, 1, 1)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-4)
    assert {True, False} == set((slope > 0).tolist())  # some are flipped


def test_other_channels_are_refused_in_words_and_geometry_takes_them() -> None:
    x = torch.rand(2, 6, 8, 8)
    with pytest.raises(UserError, match=r"D sees 6 channels. Type augment_both.colour=false"):
        ada().require_channels(6)
    ada(colour=False).require_channels(6)
    assert ada(colour=False).transform(x).shape == x.shape
