"""From run folders to tables and pictures: read files, group over seeds, compare, render.

Python gives a package its name in the package around it, so `crgan_cli.report` is this one as soon
as it is imported, and no longer the function that `crgan_cli` lists. A call therefore does the
same: `crgan_cli.report([RUN, ...])`.
"""

import sys
from types import ModuleType
from typing import Any

from crgan_cli.system.lazy import import_offer


class CallablePackage(ModuleType):
    """This package, which can be called like `commands.api.compare_runs`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_offer("crgan_cli", "report")(*args, **options)


sys.modules[__name__].__class__ = CallablePackage
