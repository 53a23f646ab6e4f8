"""The table of docs/methods.md is what the plan of a step says."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from methods_table import describe_method, format_table  # noqa: E402


def test_the_page_has_the_table_that_is_computed() -> None:
    assert f"\n{format_table()}\n" in (ROOT / "docs/methods.md").read_text(encoding="utf-8")


def test_passes_by_hand() -> None:
    """D 3 x 2 views and G 1 in D's turn; G 3 and D 2 in G's."""
    none, icr = (describe_method(f"regularizer={name}") for name in ("none", "icr"))
    assert (none.d_passes, none.g_passes) == (3 * 2 + 2, 1 + 3)
    assert (icr.d_passes, icr.g_passes) == (3 * 5 + 2, 2 + 6)
    assert icr.d_sees == "real fake T(real) T(fake) near"
