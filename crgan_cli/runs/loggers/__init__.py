"""Where else the numbers, images and settings of a run go, besides metrics.jsonl."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.runs.loggers.csv_table import CSV as CSV
    from crgan_cli.runs.loggers.mlflow_runs import MLflow as MLflow
    from crgan_cli.runs.loggers.tensorboard import TensorBoard as TensorBoard
    from crgan_cli.runs.loggers.weights_and_biases import WandB as WandB

__getattr__ = lazy_imports(__name__)
