"""The cache of results: what is read back is what was written, or nothing."""

import random
from pathlib import Path

import pytest
import torch

from crgan_cli.system.cache import load_cached, save_cached


def test_any_flipped_bit_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cutout.pt"
    save_cached(file, {"weights": {"a": torch.arange(50.0)}})
    whole, chance = file.read_bytes(), random.Random(0)
    for count in range(1, 101):
        place = chance.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert load_cached(file) is None
        assert caplog.text.count("is damaged: it will be computed again") == count
    file.write_bytes(whole)
    content = load_cached(file)
    assert content is not None
    assert torch.equal(content["weights"]["a"], torch.arange(50.0))
