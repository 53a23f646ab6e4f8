"""Say that a library is being loaded whose import takes seconds of silence."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class LoadingNotice(MetaPathFinder):
    """Shows a line on stderr while a library is imported for the first time, then erases it.

    In `sys.meta_path`, before the finders that find it: so no import has to know of it.
    """

    def __init__(self, library: str, title: str) -> None:
        self.library = library
        self.text = f"loading {title} ..."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the library as all other finders do, and show the line while it is executed."""
        if fullname != self.library:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            print(self.text, end="", file=sys.stderr, flush=True)
            try:
                execute(module)
            finally:
                erased = " " * len(self.text)
                print(f"\r{erased}\r", end="", file=sys.stderr, flush=True)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def announce_torch() -> None:
    """Say on a terminal when PyTorch is loaded, whichever command needs it first."""
    if sys.stderr.isatty() and "torch" not in sys.modules:
        sys.meta_path.insert(0, LoadingNotice("torch", "PyTorch"))
