"""One run: the loop, its engine, its optimizers, and what happens every N steps."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.training.engine.auto import Auto as Auto
    from crgan_cli.training.engine.eager import Eager as Eager
    from crgan_cli.training.engine.graphs import Graphs as Graphs
    from crgan_cli.training.optimizers import SGD as SGD
    from crgan_cli.training.optimizers import Adam as Adam

__getattr__ = lazy_imports(__name__)
