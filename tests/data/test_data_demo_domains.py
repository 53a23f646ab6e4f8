"""Domains and attributes from the embedded garments."""

import numpy as np
import pytest
import torch

from crgan_cli.data.demo_domains import DemoAttributes, DemoDomains, DemoTraits
from crgan_cli.data.embedded import Demo, read_tiles
from crgan_cli.errors import UserError

FACTS: dict[str, int] = {"resolution": 32, "channels": 1}


def demo_domains(**changed: int) -> DemoDomains:
    options = {**FACTS, "classes": 0, "channels_a": 1, "channels_b": 1, "load_size": 36, **changed}
    return DemoDomains(**options)  # pyright: ignore[reportArgumentType]


def test_the_domains_are_t_shirts_and_trousers():
    garments = Demo(**FACTS, classes=10).load("test")
    sets = demo_domains().load_views("test")
    assert list(sets) == ["a", "b"]
    assert torch.equal(sets["a"].x, garments.x[garments.y == 0])
    assert torch.equal(sets["b"].x, garments.x[garments.y == 1])


def test_training_images_have_a_border_to_crop_from():
    data = demo_domains()
    stored, views = data.load_sets("train"), data.load_views("train")
    assert stored["a"].x.shape == stored["b"].x.shape == (2000, 1, 36, 36)
    assert torch.equal(views["b"].x, stored["b"].x[:, :, 2:34, 2:34])
    assert not stored["a"].x[:, :, :4].any()
    assert not stored["a"].x[:, :, :, -4:].any()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resolution": 64, "load_size": 64}, "demo set of domains is 32x32.*resolution=64"),
        ({"channels_b": 3}, "is grey, so .* dataset.channels_b=3 cannot be true"),
        ({"load_size": 31}, "load_size=31 is smaller than"),
    ],
)
def test_facts_of_the_domains_are_not_changed(changed: dict[str, int], said: str):
    with pytest.raises(UserError, match=said):
        demo_domains(**changed).load_sets("test")


def test_the_attributes_are_five_classes_of_garments():
    data, garments = DemoAttributes(**FACTS, classes=5), Demo(**FACTS, classes=10).load("test")
    images = data.load("test")
    assert data.class_names == ("t-shirt/top", "trouser", "dress", "bag", "ankle boot")
    assert images.y[:6].tolist() == [0, 1, 2, 3, 4, 0]
    for label, number in enumerate((0, 1, 3, 8, 9)):
        assert torch.equal(images.x[images.y == label], garments.x[garments.y == number])


def test_traits_are_the_mean_and_the_spread_of_the_garment():
    data = DemoTraits(**FACTS, classes=0, attributes=["patterned", "bright"])
    x, y = data.load("test")
    assert x.shape == (1200, 1, 32, 32)
    assert y.dtype == torch.int64
    for picture, row in zip(x.numpy()[:20, 0], y[:20].tolist(), strict=True):
        garment = picture[picture > 16].astype(float)
        assert row == [int(np.std(garment) > 43), int(garment.mean() > 170)]
    assert ((y.float().mean(0) - 0.5).abs() < 0.05).all()
    assert len(y.unique(dim=0)) == 4


def test_a_fraction_of_traits_has_as_much_of_each_kind(monkeypatch: pytest.MonkeyPatch):
    few = read_tiles("test")  # faster than the training images
    monkeypatch.setattr("crgan_cli.data.demo_domains.read_tiles", lambda split: few)
    options = {**FACTS, "classes": 0, "fraction": 0.1}
    y = DemoTraits(**options, attributes=["bright", "patterned"]).load("train").y  # pyright: ignore
    whole = DemoTraits(**FACTS, classes=0, attributes=["bright", "patterned"]).load("train").y
    for row in whole.unique(dim=0):
        share = (whole == row).all(1).sum().item() * 0.1
        assert (y == row).all(1).sum().item() == round(share)


@pytest.mark.parametrize("attributes", [[], ["bright", "bright"]])
def test_no_or_repeated_traits_are_refused(attributes: list[str]):
    with pytest.raises(UserError, match="must name bright, patterned or both, once"):
        DemoTraits(**FACTS, classes=0, attributes=attributes)  # pyright: ignore
