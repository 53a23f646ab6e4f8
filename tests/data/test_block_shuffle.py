"""The order of a set that is read from a file nearly in sequence, and what is read ahead."""

import os
from pathlib import Path

import pytest
import torch

from crgan_cli.data import batches as module
from crgan_cli.data.batch_sampler import BatchSampler, BlockShuffle
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images, StoredImages, fingerprint, to_uint8
from crgan_cli.data.pixel_files import StoredPixels, map_pixels
from crgan_cli.system.distributed.world import World, as_world

CPU = torch.device("cpu")
COUNT, BLOCK, WINDOW = 103, 4, 3
LABELS = torch.zeros(COUNT)
LAW = BlockShuffle(BLOCK, WINDOW)


def sampler(batch_size: int = 5, *, seed: int = 0, flip: bool = False) -> BatchSampler:
    return BatchSampler(LABELS, batch_size, seed=seed, flip=flip, device=CPU, blocks=LAW)


def epoch_of(order: BatchSampler, epoch: int, batch_size: int = 5) -> list[int]:
    per_epoch = COUNT // batch_size
    first = epoch * per_epoch
    return torch.cat([order[first + i][0] for i in range(per_epoch)]).tolist()


def stored(folder: Path) -> StoredImages:
    """Image i is filled with i, and its label is i."""
    x = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    path = folder / "pixels.u8"
    path.write_bytes(x.contiguous().numpy().tobytes())
    return StoredImages.open(StoredPixels(path, (COUNT, 1, 2, 2), "abc"), torch.arange(COUNT))


def test_each_image_is_drawn_once_an_epoch() -> None:
    order = sampler(1)
    for epoch in range(3):
        assert sorted(epoch_of(order, epoch, 1)) == list(range(COUNT))
    assert epoch_of(order, 0, 1) != epoch_of(order, 1, 1)
    assert epoch_of(order, 0, 1) != epoch_of(sampler(1, seed=1), 0, 1)


def test_an_epoch_is_the_blocks_in_random_order_and_windows_of_them_shuffled() -> None:
    images, firsts = LAW.draw(COUNT, torch.Generator().manual_seed(7))
    assert sorted(firsts.tolist()) == list(range(0, COUNT, BLOCK))
    assert firsts.tolist() != sorted(firsts.tolist())
    start = 0
    for window in firsts.split(WINDOW):
        expected = [i for first in window.tolist() for i in range(first, min(first + BLOCK, COUNT))]
        drawn = images[start : start + len(expected)].tolist()
        assert sorted(drawn) == sorted(expected)
        start += len(expected)
    assert start == COUNT
    assert images[: BLOCK * WINDOW].tolist() != sorted(images[: BLOCK * WINDOW].tolist())


def test_a_window_of_all_blocks_can_put_any_image_anywhere() -> None:
    """The first of 6 images in 2,000 orders: each about 333 times, with a deviation of 17."""
    law, generator = BlockShuffle(2, 3), torch.Generator().manual_seed(0)
    first = torch.stack([law.draw(6, generator)[0][0] for _ in range(2000)])
    assert all(250 < count < 420 for count in first.bincount(minlength=6).tolist())


def test_a_batch_is_a_function_of_seed_and_index_alone() -> None:
    walked = sampler(flip=True)
    for index in range(45):
        walked[index]
    assert torch.equal(walked[45][0], sampler(flip=True)[45][0])
    assert torch.equal(walked[3][0], sampler(flip=True)[3][0])


def test_processes_share_the_batches_of_one() -> None:
    alone = BatchSampler(LABELS, 6, seed=0, flip=True, device=CPU, blocks=LAW)
    parts = []
    for rank in range(3):
        with as_world(World(rank, 3)):
            parts.append(BatchSampler(LABELS, 6, seed=0, flip=True, device=CPU, blocks=LAW))
    for index in (0, 5, 16, 17, 40):
        assert torch.equal(torch.cat([part[index][0] for part in parts]), alone[index][0])


@pytest.mark.parametrize("flip", [False, True])
def test_a_mapped_file_gives_the_batches_of_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    mapped = stored(tmp_path)
    plain = Images(mapped.x.clone(), mapped.y)
    options = {"batch_size": 5, "seed": 3, "device": CPU, "flip": flip, "blocks": LAW}
    on_device = Batches(plain, **options)
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    streamed = Batches(mapped, **options)
    for index in (0, 1, 2, 19, 20, 7):
        assert torch.equal(streamed[index].x, on_device[index].x)
        y, expected = streamed[index].y, on_device[index].y
        assert y is not None
        assert expected is not None
        assert torch.equal(y, expected)


def test_a_run_goes_on_if_the_file_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = stored(tmp_path)
    expected = mapped.x.clone()
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    batches = Batches(mapped, batch_size=5, seed=3, device=CPU, flip=False, blocks=LAW)
    (tmp_path / "pixels.u8").unlink()
    for index in range(3):
        y = batches[index].y
        assert y is not None
        assert torch.equal(to_uint8(batches[index].x), expected[y])


def test_a_file_is_closed_with_the_last_who_needs_it(tmp_path: Path) -> None:
    mapped = stored(tmp_path)
    assert mapped.stored
    descriptor = mapped.stored._descriptor
    relabelled = mapped.with_labels(mapped.y + 1)
    del mapped
    os.fstat(descriptor)
    del relabelled
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_every_image_was_asked_for_before_its_batch_and_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda fd, first, size, advice: asked.extend(range(first, first + size)),
    )
    monkeypatch.setattr(module, "MAX_BYTES_WITHOUT_GPU", 0)
    batches = Batches(stored(tmp_path), batch_size=5, seed=0, device=CPU, flip=False, blocks=LAW)
    ahead = 0
    for index in range(20):
        y = batches[index].y
        assert y is not None
        batches._source._thread.submit(int).result()  # type: ignore[union-attr]
        assert {4 * label for label in y.tolist()} <= set(asked)  # an image has four bytes
        ahead = max(ahead, len(set(asked)) // 4 - 5 * (index + 1))
    assert BLOCK * WINDOW <= ahead <= BLOCK * (2 * WINDOW + 2)
    assert len(asked) - len(set(asked)) < 4 * BLOCK * 2 * WINDOW  # but for the next epoch's first


def test_orders_without_blocks_have_none_to_read() -> None:
    assert BatchSampler(LABELS, 2, seed=0, flip=False, device=CPU).find_near_blocks(0) == []


def test_a_map_may_be_larger_than_the_memory_and_is_not_written_through(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**42)  # 4 TiB of holes
    x = map_pixels(path, (2**40, 4))
    x[5] = 3
    assert x[5:7].tolist() == [[3] * 4, [0] * 4]
    assert map_pixels(path, (2**40, 4))[5].tolist() == [0] * 4


def test_the_digest_of_a_file_stands_for_its_pixels(tmp_path: Path) -> None:
    mapped = stored(tmp_path)
    assert fingerprint(mapped) == fingerprint(stored(tmp_path))
    assert fingerprint(mapped) != fingerprint(mapped.with_labels(torch.zeros_like(mapped.y)))
    assert mapped.select(torch.arange(COUNT)).stored is None
    plain = Images(mapped.x, mapped.y)
    assert fingerprint(mapped.select(torch.arange(COUNT))) == fingerprint(plain)
