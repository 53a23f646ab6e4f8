"""Endless batches: seeded, stateless, and without repeats inside an epoch."""

import gc
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch
from support.nosync import NoSync
from torch import Tensor

from crgan_cli.data import batches as module
from crgan_cli.data import on_device, streamed
from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.batches import Batches, SideBySideBatches, choose_limit, make_batches
from crgan_cli.data.images import Images, to_float
from crgan_cli.data.on_device import DeviceImages, SharedImages
from crgan_cli.errors import UserError
from crgan_cli.system.distributed.world import World
from crgan_cli.training.engine.auto import Auto
from crgan_cli.training.engine.eager import Eager

CPU = torch.device("cpu")
VIEWS = ("view", "permute", "detach", "unsqueeze")
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)


def numbered(count: int = 10) -> Images:
    """Image i is filled with i at the left and 100 + i at the right, and its label is i."""
    number = torch.arange(count, dtype=torch.uint8)
    x = torch.stack([number, 100 + number], dim=1).view(count, 1, 1, 2).expand(-1, 1, 2, 2)
    return Images(x.contiguous(), torch.arange(count))


def coloured(count: int = 10) -> Images:
    """Images that differ in every pixel."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (count, 3, 4, 5), dtype=torch.uint8, generator=generator)
    return Images(x, torch.arange(count))


def make(count: int = 10, *, batch_size: int = 3, seed: int = 0, flip: bool = False) -> Batches:
    return Batches(numbered(count), batch_size=batch_size, seed=seed, device=CPU, flip=flip)


def labels(batches: Batches, index: int) -> list[int]:
    y = batches[index].y
    assert y is not None
    return y.tolist()


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No set fits on the device."""
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The thread and the positions of every batch that is read."""
    seen: list[tuple[str, list[int]]] = []
    read = streamed.read_batch

    def noted(images: Images, positions: Tensor, room: Images) -> Images:
        seen.append((threading.current_thread().name, positions.tolist()))
        return read(images, positions, room)

    monkeypatch.setattr(streamed, "read_batch", noted)
    return seen


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
    batches = make(seed=8, flip=True)
    assert labels(batches, 1) == labels(make(seed=8), 1) == [2, 8, 5]
    assert mirrored(batches[1].x) == [True, False, False]


def mirrored(x: Tensor) -> list[bool]:
    return (x[:, 0, 0, 0] > x[:, 0, 0, 1]).tolist()


def test_flip_mirrors_about_half_of_the_images_each_on_its_own_and_anew_in_each_epoch():
    batches = make(100, batch_size=100, flip=True)
    drawn = [
        dict(zip(labels(batches, epoch), mirrored(batches[epoch].x), strict=True))
        for epoch in (0, 1)
    ]
    assert all(30 < sum(each.values()) < 70 for each in drawn)
    assert drawn[0] != drawn[1]
    assert not any(mirrored(make(100, batch_size=100)[0].x))


def test_flips_depend_on_the_seed():
    first = [mirrored(make(100, batch_size=100, flip=True, seed=seed)[0].x) for seed in (0, 1, 0)]
    assert first[0] == first[2] != first[1]


@LAYOUTS
@pytest.mark.parametrize("where", ["on_device", "streamed"])
def test_every_image_is_one_of_the_set_or_its_mirror_image(
    monkeypatch: pytest.MonkeyPatch, where: str, layout: torch.memory_format
):
    if where == "streamed":
        monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    images = coloured(7)
    batches = Batches(images, batch_size=3, seed=0, device=CPU, flip=True, layout=layout)
    kinds = set()
    for index in range(6):
        x, y = batches[index]
        assert y is not None
        for image, label in zip(x, y.tolist(), strict=True):
            plain = to_float(images.x[label])
            kinds.add(torch.equal(image, plain))
            assert torch.equal(image, plain) or torch.equal(image, plain.flip(2))
        assert x.is_contiguous(memory_format=layout)
    assert kinds == {True, False}


@pytest.mark.parametrize("flip", [False, True])
def test_the_default_generator_is_left_alone(flip: bool):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make(flip=flip)[0]
    assert torch.equal(torch.rand(3), expected)


def test_the_stored_pixels_are_not_changed():
    images = numbered()
    batches = Batches(images, batch_size=10, seed=0, device=CPU, flip=True)
    batches[0].x.zero_()
    assert torch.equal(images.x, numbered().x)


def test_a_set_larger_than_a_chunk_comes_to_the_device_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(on_device, "IMAGES_PER_COPY", 4)
    x, y = make(batch_size=10)[0]
    assert y is not None
    assert torch.equal(x, to_float(numbered().x[y]))


# --- what a turn is handed ------------------------------------------------------------------------


def test_the_inputs_of_a_set_that_fits_are_a_view_of_the_epochs_order():
    batches = make()
    (first,), (second,) = batches.inputs(0), batches.inputs(1)
    assert (first.dtype, first.shape) == (torch.int64, (3,))
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    with NoSync() as watch:
        batches.inputs(2)
    assert [name for name, _ in watch.seen] == ["slice"]


@LAYOUTS
@pytest.mark.parametrize("flip", [False, True])
def test_making_a_batch_draws_nothing_and_waits_for_nothing(
    flip: bool, layout: torch.memory_format
):
    batches = Batches(coloured(), batch_size=3, seed=0, device=CPU, flip=flip, layout=layout)
    inputs = batches.inputs(0)
    with NoSync() as watch:
        batches.to_views(*inputs)
    kernels = [name for name, _ in watch.seen if name not in VIEWS]
    assert kernels.count("index_select") == 2  # pixels and labels; then x / 127.5 - 1
    assert len(kernels) <= 6 + 4 * flip  # remainder, ge, flip, where
    assert not {"rand", "randint", "random_"} & set(kernels)


def test_making_a_batch_leaves_its_inputs_as_they_were(too_large: None):
    batches = make()
    inputs = batches.inputs(0)
    before = tuple(part.clone() for part in inputs)
    batches.to_views(*inputs)["real"].x.zero_()
    assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))


def test_the_inputs_of_a_larger_set_are_its_bytes(too_large: None):
    x, y = make().inputs(0)
    assert (x.dtype, x.shape) == (torch.uint8, (3, 1, 2, 2))
    assert (y.dtype, y.shape) == (torch.int64, (3,))


# --- sets too large for the device ----------------------------------------------------------------


def test_a_gpu_gives_a_quarter_of_its_memory_and_other_devices_two_gibibytes():
    assert choose_limit(140 * 10**9, None) == 35 * 10**9
    assert choose_limit(None, None) == 2 * 1024**3


def test_the_limit_is_a_setting():
    assert choose_limit(140 * 10**9, 0.5) == choose_limit(None, 0.5) == 2**29
    assert choose_limit(None, 0) == 0
    with pytest.raises(UserError, match=r"images_gib=200 is more than the 130\.4 GiB of this GPU"):
        choose_limit(140 * 10**9, 200)
    images = numbered()
    for limit, inputs in ((images.x.nbytes, 1), (images.x.nbytes - 1, 2)):
        options = {"batch_size": 3, "seed": 0, "device": CPU, "flip": True, "limit": limit}
        batches = make_batches(
            {"real": images}, {"real": ()}, crop=None, layout=torch.channels_last, **options
        )
        assert len(batches.inputs(0)) == inputs


def test_the_limit_is_of_all_sets_of_a_run_together():
    images = numbered()
    sets = {"a": images, "b": images, "c": Images(images.x[:4], images.y[:4])}
    options = {"batch_size": 3, "seed": 0, "device": CPU, "flip": True, "crop": None}
    for room, inputs in ((2.4, [1, 1, 1]), (1.9, [1, 2, 1]), (1.0, [1, 2, 2])):
        limit = round(images.x.nbytes * room)
        batches = make_batches(
            sets, dict.fromkeys(sets, ()), layout=torch.channels_last, limit=limit, **options
        )
        assert isinstance(batches, SideBySideBatches)
        assert [each.inputs_count for each in batches.sets] == inputs


def test_the_engine_hands_on_the_limit():
    for engine in (Eager(images_gib=0.25), Auto(images_gib=0.25)):
        assert engine.for_device(CPU).image_limit == 2**28
    assert Eager().for_device(CPU).image_limit == 2 * 1024**3


def test_mirror_images_take_room_on_another_device():
    images, meta = numbered(), torch.device("meta")
    for flip, inputs in ((False, 1), (True, 2)):
        batches = Batches(
            images, batch_size=3, seed=0, device=meta, flip=flip, limit=images.x.nbytes
        )
        assert len(batches.inputs(0)) == inputs


def test_a_cpu_uses_the_pixels_where_they_are():
    """A cached set is memory-mapped: a copy of it would be in memory twice."""
    images = coloured()
    batches = Batches(
        images, batch_size=3, seed=1, device=CPU, flip=True, layout=torch.channels_last
    )
    before = batches[0].x.clone()
    images.x.bitwise_not_()
    torch.testing.assert_close(batches[0].x, -before)


@LAYOUTS
@pytest.mark.parametrize("crop", [None, 3])
def test_images_copied_to_a_device_give_the_same_batches(layout: torch.memory_format, crop):
    images = coloured()
    slack = None if crop is None else (1, 2)
    sampler = BatchSampler(torch.zeros(10), 4, seed=1, flip=True, device=CPU, slack=slack)
    shared = SharedImages(images, sampler, flip=True, crop=crop, layout=layout)
    copied = DeviceImages(images, sampler, flip=True, crop=crop, device=CPU, layout=layout)
    for index in range(6):
        for ours, theirs in zip(
            shared.to_batch(*shared.inputs(index)),
            copied.to_batch(*copied.inputs(index)),
            strict=True,
        ):
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()


@LAYOUTS
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("indices", [range(8), [5, 5, 0, 7, 6, 7, 8, 2]], ids=str)
def test_a_set_too_large_for_the_device_gives_the_same_batches(
    monkeypatch: pytest.MonkeyPatch,
    indices: list[int],
    flip: bool,
    layout: torch.memory_format,
):
    def batches() -> Batches:
        return Batches(coloured(), batch_size=3, seed=1, device=CPU, flip=flip, layout=layout)

    on_the_device = batches()
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    streamed = batches()
    for index in indices:
        for ours, theirs in zip(streamed[index], on_the_device[index], strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()


def test_the_next_batch_is_read_by_a_thread_and_once(
    too_large: None, reads: list[tuple[str, list[int]]]
):
    batches = make()
    for index in range(5):
        batches.inputs(index)
    until(lambda: len(reads) == 6)
    assert [thread.startswith("batches") for thread, _ in reads] == [False] + 5 * [True]
    order = BatchSampler(torch.zeros(10), 3, seed=0, flip=False, device=CPU)
    assert [positions for _, positions in reads] == [order[index][0].tolist() for index in range(6)]


def test_a_batch_on_its_way_is_not_read_again(too_large: None, reads: list[tuple[str, list[int]]]):
    batches = make()
    for index in (0, 0, 0, 1):
        batches.inputs(index)
    until(lambda: len(reads) == 5)
    order = BatchSampler(torch.zeros(10), 3, seed=0, flip=False, device=CPU)
    expected = [order[index][0].tolist() for index in (0, 0, 0, 1, 2)]
    assert sorted(positions for _, positions in reads) == sorted(expected)


def test_a_set_that_fits_starts_no_thread():
    before = set(threading.enumerate())
    make()[0]
    assert set(threading.enumerate()) <= before


def test_a_reading_that_fails_is_heard_of_where_its_batch_is_asked_for(
    too_large: None, monkeypatch: pytest.MonkeyPatch
):
    batches, read = make(), streamed.read_batch
    expected = labels(make(), 1)

    def broken(images: Images, positions: Tensor, room: Images) -> Images:
        raise OSError("Input/output error")

    batches.inputs(3)  # so that a batch is on its way that is not asked for
    until(lambda: not batches._source._thread._work_queue.qsize())  # type: ignore[union-attr]
    monkeypatch.setattr(streamed, "read_batch", broken)
    with pytest.raises(OSError, match="Input/output"):
        batches.inputs(0)
    monkeypatch.setattr(streamed, "read_batch", read)
    assert labels(batches, 1) == expected
    monkeypatch.setattr(streamed, "read_batch", broken)
    batches.inputs(2)
    with pytest.raises(OSError, match="Input/output"):
        batches.inputs(3)


def test_the_thread_ends_with_the_batches(too_large: None):
    before = set(threading.enumerate())
    batches = make()
    batches.inputs(0)
    (thread,) = set(threading.enumerate()) - before
    del batches
    gc.collect()
    thread.join(120)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to a single thread")
def test_ctrl_c_is_heard_while_a_slow_disk_is_waited_for(
    too_large: None, monkeypatch: pytest.MonkeyPatch
):
    batches, read, released = make(), streamed.read_batch, threading.Event()
    expected = labels(make(), 1)

    def stuck(images: Images, positions: Tensor, room: Images) -> Images:
        released.wait(300)
        return read(images, positions, room)

    def interrupted() -> None:
        threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT)).start()
        batches.inputs(1)

    monkeypatch.setattr(streamed, "read_batch", stuck)
    batches._source._prefetch(1)  # type: ignore[union-attr]
    main = threading.main_thread().ident
    assert main is not None
    # a process in the background is started with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    signal.signal(signal.SIGINT, before)
    assert not released.is_set()
    released.set()
    assert labels(batches, 1) == expected


def until(happened: Callable[[], bool]) -> None:
    """Waits for what a thread does."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- several processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [2**31, 0], ids=["on_device", "streamed"])
def test_the_parts_of_two_processes_are_the_batch_of_one(
    monkeypatch: pytest.MonkeyPatch, max_bytes: int
):
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", max_bytes)
    alone = make(batch_size=4, flip=True)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("crgan_cli.system.distributed.world._world", World(rank, 2, rank))
        parts.append(make(batch_size=4, flip=True))
    assert [each.batch_size for each in parts] == [4, 4]
    for index in range(5):
        x, y = zip(*(each[index] for each in parts), strict=True)
        assert torch.equal(torch.cat(x), alone[index].x)
        assert torch.equal(torch.cat(y), alone[index].y)  # type: ignore[arg-type]


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("crgan_cli.system.distributed.world._world", World(1, 4, 1))
    with pytest.raises(UserError, match=r"batch_size=7 .*multiple of 4, e\.g\. batch_size=8,"):
        make(10, batch_size=7)
    assert make(10, batch_size=8).inputs(0)[0].shape == (2,)


# --- bad input ------------------------------------------------------------------------------------


def test_a_batch_larger_than_the_set_is_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"batch of 11 images .* training set of 10"):
        make(10, batch_size=11)


def test_a_negative_index_is_a_bug():
    with pytest.raises(IndexError, match="start at 0"):
        make()[-1]


def test_sets_side_by_side_have_orders_of_their_own() -> None:
    sets = [
        Batches(
            numbered(count), batch_size=2, seed=1, device=CPU, flip=True, name=name, stream=stream
        )
        for stream, (name, count) in enumerate({"a": 10, "b": 10, "c": 7}.items())
    ]
    both = SideBySideBatches(sets)
    drawn = {name: [] for name in "abc"}
    for index in range(15):
        for name, batch in both.to_views(*both.inputs(index)).items():
            assert batch.y is not None
            drawn[name] += batch.y.tolist()
    assert sorted(drawn["a"][:10]) == sorted(drawn["b"][:10]) == list(range(10))
    assert drawn["a"] != drawn["b"]
    assert len(set(drawn["c"][:6])) == 6  # three batches an epoch, the odd image is left out
    alone = Batches(numbered(10), batch_size=2, seed=1, device=CPU, flip=True)
    first = both.to_views(*both.inputs(3))["a"]
    assert torch.equal(first.x, alone[3].x)


@pytest.mark.parametrize("on_device", [True, False])
def test_each_batch_comes_from_one_part(monkeypatch: pytest.MonkeyPatch, on_device: bool) -> None:
    if not on_device:
        monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    y = torch.cat([torch.tensor([[1, 0]]).expand(4, 2), torch.tensor([[0, 1]]).expand(6, 2)])
    images = Images(numbered(10).x, y)
    batches = Batches(images, batch_size=2, seed=1, device=CPU, flip=True, parts=(4, 6))
    seen: dict[int, list[int]] = {0: [], 1: []}
    for index in range(12):
        x, labels = batches[index]
        assert labels is not None
        assert labels.tolist() == [[1, 0] if index % 2 == 0 else [0, 1]] * 2
        pixels = ((x + 1) * 127.5).round().long()
        seen[index % 2] += (pixels[:, 0, 0].min(1).values).tolist()
    assert sorted(seen[0][:4]) == [0, 1, 2, 3]
    assert sorted(seen[1][:6]) == [4, 5, 6, 7, 8, 9]
