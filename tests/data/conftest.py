"""What the tests of data sets share."""

from pathlib import Path

import pytest


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own; the folder where it keeps data sets."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"
