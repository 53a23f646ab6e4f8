"""What a release says of itself, in several places."""

import re
from pathlib import Path

import yaml

from crgan_cli import __version__

ROOT = Path(__file__).parents[1]


def test_the_version_is_one_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    headings = re.findall(r"^## (\S+), \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == __version__


def test_ci_elsewhere_is_the_gate() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
