"""What the tests of networks share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """Each test draws the same numbers, in whatever order the tests run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
