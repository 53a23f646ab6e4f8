"""crgan: an experiment runner for consistency-regularised GANs. Importing it imports no torch.

In Python (docs/python.md): `import crgan_cli as crgan`, then

    crgan.train([overrides])   crgan.load(RUN)   crgan.evaluate(RUN)   crgan.report([RUN, ...])
"""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.commands.api import TrainedRun as TrainedRun
    from crgan_cli.commands.api import compare_runs as report
    from crgan_cli.commands.api import score_model as evaluate
    from crgan_cli.commands.api import start_training as train
    from crgan_cli.errors import RunFailed as RunFailed
    from crgan_cli.errors import UserError as UserError
    from crgan_cli.evaluation.model import Model as Model
    from crgan_cli.evaluation.model import load_model as load

__version__ = "0.2.0"

__all__ = [
    "Model",
    "RunFailed",
    "TrainedRun",
    "UserError",
    "evaluate",
    "load",
    "report",
    "train",
]

__getattr__ = lazy_imports(__name__)
