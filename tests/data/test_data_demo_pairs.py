"""The demo set of pairs: made from the embedded garments, always alike."""

import numpy as np
import pytest
import torch

from crgan_cli.data.demo_pairs import DemoPairs, draw_outlines
from crgan_cli.data.embedded import read_tiles
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import UserError


def demo_pairs(**changed: int) -> DemoPairs:
    options = {"resolution": 32, "channels": 2, "channels_in": 1, "channels_out": 1, "classes": 0}
    return DemoPairs(**{**options, "load_size": 36, **changed})  # pyright: ignore[reportArgumentType]


def test_a_drawing_by_hand():
    square = np.zeros((1, 28, 28), np.uint8)
    square[0, 2:12, 3:13] = 100
    square[0, 2:12, 8:13] = 255  # a step of 155 inside: an edge
    square[0, 20:26, 3:13] = 100
    square[0, 20:26, 8:13] = 120  # a step of 20: none
    lines = draw_outlines(square)[0] == 0
    rim = np.zeros((28, 28), bool)
    for rows, columns in ((slice(2, 12), slice(3, 13)), (slice(20, 26), slice(3, 13))):
        rim[rows, columns] = True
        rim[rows, columns][1:-1, 1:-1] = False
    edge = np.zeros((28, 28), bool)
    edge[4:10, 8] = True
    assert np.array_equal(lines[rim], rim[rim])
    assert np.array_equal(lines[4:10] & ~rim[4:10], edge[4:10])
    assert not (lines & ~rim)[20:26].any()
    assert not lines[13:19].any()


def test_a_drawing_does_not_depend_on_what_is_drawn_with_it():
    tiles = read_tiles("test")[:6]
    assert np.array_equal(draw_outlines(tiles)[2:], draw_outlines(tiles[2:]))


def test_the_pairs_are_drawing_and_garment_with_a_border_to_crop_from():
    images, tiles = demo_pairs().load("test"), read_tiles("test")
    assert images.x.shape == (4000, 2, 32, 32)
    assert np.array_equal(images.x[:, 1, 2:30, 2:30], tiles)
    assert np.array_equal(images.x[:, 0, 2:30, 2:30], draw_outlines(tiles))
    frame = images.x.clone()
    frame[:, :, 2:30, 2:30] = torch.tensor([255, 0]).view(2, 1, 1)
    assert frame.amin((0, 2, 3)).tolist() == frame.amax((0, 2, 3)).tolist() == [255, 0]
    share = (images.x[:, 0] == 0).float().mean((1, 2))  # of black pixels
    assert 0.05 < share.mean() < 0.2
    assert share.min() > 0.01


def test_the_training_pairs_are_larger_and_the_same_next_release():
    train = demo_pairs().load("train")
    assert train.x.shape == (20000, 2, 36, 36)
    assert fingerprint(Images(train.x[:100], train.y[:100])) == FIRST


FIRST = "0a6e87089b20dc8fc6113d269a522559176598e5693bc7447775748e3912e096"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resolution": 64, "load_size": 64}, r"demo set of pairs is 32x32.*resolution=64"),
        ({"load_size": 31}, "load_size=31 is smaller than"),
        ({"channels": 4, "channels_in": 3}, "has 2 channels .*channels=4"),
    ],
)
def test_facts_of_the_set_are_not_changed(changed: dict[str, int], said: str):
    with pytest.raises(UserError, match=said):
        demo_pairs(**changed).load("test")
