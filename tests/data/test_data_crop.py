"""Random squares of the training images: inside, alike on every way, and counted as the images."""

import pytest
import torch
from support.nosync import NoSync
from support.tapes import Tape

from crgan_cli.data import batches as module
from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.batches import Batches
from crgan_cli.data.crop import cut
from crgan_cli.data.images import Images, to_uint8
from crgan_cli.system.distributed.world import World

CPU = torch.device("cpu")
HEIGHT, WIDTH, SIDE = 8, 9, 5
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
FLIPS = pytest.mark.parametrize("flip", [False, True])


def mapped(count: int = 10) -> Images:
    """Pairs whose pixels say where they are: channels are image, row, column; and once again."""
    number = torch.arange(count).view(-1, 1, 1).expand(count, HEIGHT, WIDTH)
    row = torch.arange(HEIGHT).view(1, -1, 1).expand_as(number)
    column = torch.arange(WIDTH).expand_as(number)
    half = torch.stack([number, row, column], 1).to(torch.uint8)
    return Images(torch.cat([half, half + 100], 1), torch.arange(count))


def make(images: Images | None = None, **changed) -> Batches:
    options = {"batch_size": 3, "seed": 0, "device": CPU, "flip": False, "crop": SIDE, **changed}
    return Batches(images or mapped(), **options)


@pytest.fixture(params=["on_device", "streamed"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "streamed":
        monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    return request.param


def test_a_cut_by_hand():
    x = torch.arange(2 * 3 * 4).view(2, 1, 3, 4)
    images, offsets = torch.tensor([1, 0, 1]), torch.tensor([[1, 2], [0, 0], [1, 0]])
    mirrored = torch.tensor([False, False, True])
    assert cut(x, images, offsets, 2, mirrored)[:, 0].tolist() == [
        [[18, 19], [22, 23]],
        [[0, 1], [4, 5]],
        [[19, 18], [23, 22]],  # the left of the mirror image
    ]


@LAYOUTS
@FLIPS
def test_each_crop_is_one_square_of_its_image_and_moves_both_halves_alike(
    where: str, flip: bool, layout: torch.memory_format
):
    batches = make(flip=flip, layout=layout)
    seen = set()
    for index in range(30):
        x, y = batches[index]
        assert y is not None
        assert x.is_contiguous(memory_format=layout)
        assert x.shape == (3, 6, SIDE, SIDE)
        pixels = to_uint8(x).long()
        assert torch.equal(pixels[:, :3] + 100, pixels[:, 3:])
        for image, label in zip(pixels, y, strict=True):
            number, rows, columns = image[:3]
            top, mirrored = int(rows[0, 0]), bool(columns[0, 0] > columns[0, -1])
            left = int(columns[0, -1 if mirrored else 0])
            assert (number == label).all()
            expected = mapped().x[label, :, top : top + SIDE, left : left + SIDE].long()
            assert torch.equal(image, expected.flip(2) if mirrored else expected)
            seen.add((top, left, mirrored))
    tops, lefts, flips = (set(each) for each in zip(*seen, strict=True))
    assert (tops, lefts) == ({0, 1, 2, 3}, {0, 1, 2, 3, 4})  # both ends are reached
    assert flips == ({False, True} if flip else {False})


@FLIPS
def test_offsets_are_drawn_last_so_order_and_flips_are_those_of_a_run_without_a_crop(flip: bool):
    options = {"seed": 4, "flip": flip, "device": CPU}
    plain = BatchSampler(torch.zeros(10), 3, **options)
    cropped = BatchSampler(torch.zeros(10), 3, slack=(3, 4), **options)
    for index in range(9):
        (positions,), (same, offsets) = plain[index], cropped[index]
        assert torch.equal(positions, same)
        assert (offsets.shape, offsets.dtype) == ((3, 2), torch.int64)


def test_the_offsets_are_the_same_next_release():
    sampler = BatchSampler(torch.zeros(10), 3, seed=7, flip=True, device=CPU, slack=(30, 30))
    positions, offsets = sampler[4]
    assert positions.tolist() == [8, 4, 0]
    assert offsets.tolist() == [[17, 9], [13, 19], [24, 23]]


def test_epochs_and_images_differ_in_their_offsets():
    hundred = torch.zeros(100)
    drawn = [
        BatchSampler(hundred, 100, seed=1, flip=False, device=CPU, slack=(30, 30))[epoch][1]
        for epoch in range(3)
    ]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0][:, 0], drawn[0][:, 1])
    assert len({tuple(each) for each in drawn[0].tolist()}) > 80


def test_a_crop_as_large_as_the_images_is_none():
    images = Images(mapped().x[..., :HEIGHT].contiguous(), mapped().y)
    whole, plain = make(images, crop=HEIGHT, flip=True), make(images, crop=None, flip=True)
    assert len(whole.inputs(0)) == 1
    for index in range(6):
        assert torch.equal(whole[index].x, plain[index].x)


@LAYOUTS
@FLIPS
def test_streamed_batches_are_those_on_the_device_whatever_was_asked_before(
    monkeypatch: pytest.MonkeyPatch, flip: bool, layout: torch.memory_format
):
    resident = make(flip=flip, layout=layout)
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    streamed = make(flip=flip, layout=layout)
    assert [len(each.inputs(0)) for each in (resident, streamed)] == [2, 3]
    for index in (0, 1, 2, 3, 5, 5, 0, 7, 6, 8):
        for ours, theirs in zip(streamed[index], resident[index], strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()


@LAYOUTS
def test_layouts_give_equal_numbers(where: str, layout: torch.memory_format):
    assert torch.equal(make(flip=True)[4].x, make(flip=True, layout=layout)[4].x)


def test_a_run_goes_on_where_it_was(where: str):
    walked, resumed = make(flip=True), make(flip=True)
    for index in range(7):
        walked[index]
    assert torch.equal(walked[7].x, resumed[7].x)


def test_the_parts_of_two_processes_are_the_batch_of_one(
    where: str, monkeypatch: pytest.MonkeyPatch
):
    alone = make(batch_size=4, flip=True)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("crgan_cli.system.distributed.world._world", World(rank, 2, rank))
        parts.append(make(batch_size=4, flip=True))
    for index in range(5):
        assert torch.equal(torch.cat([part[index].x for part in parts]), alone[index].x)


def test_mirror_images_take_no_room_beside_a_crop():
    options = {"device": torch.device("meta"), "flip": True, "limit": mapped().x.nbytes}
    assert make(**options).inputs(0)[0].dtype == torch.int64  # positions: it fits
    assert make(crop=None, **options).inputs(0)[0].dtype == torch.uint8


@LAYOUTS
@FLIPS
def test_cutting_draws_nothing_waits_for_nothing_and_can_be_replayed(
    where: str, flip: bool, layout: torch.memory_format
):
    batches = make(flip=flip, layout=layout)
    inputs = tuple(part.clone() for part in batches.inputs(0))
    with NoSync() as watch:
        batches.to_views(*inputs)
    kernels = [name for name, _ in watch.seen]
    assert kernels.count("index") == 1  # one gather
    assert not {"rand", "randint", "random_"} & set(kernels)

    with Tape() as tape:  # as a CUDA graph: the next batch in the same places
        batch = batches.to_views(*inputs)["real"]
    for place, part in zip(inputs, batches.inputs(5), strict=True):
        place.copy_(part)
    tape.replay()
    assert torch.equal(batch.x, batches[5].x)
