"""MLflow."""

import logging
import os
import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.loggers.base import Logger, keep_id, plain_settings, read_id, to_pixels

log = logging.getLogger(__name__)
PARAMS = 100
"""Parameters that one request may have; a value may have 500 letters."""


class MLflow(Logger):
    """A run of an experiment of MLflow.

    What was logged after the checkpoint is logged again by a resumed run, with equal values.
    """

    package = "mlflow"

    def __init__(self, experiment_name: str, tracking_uri: str | None = None) -> None:
        """`tracking_uri` None: $MLFLOW_TRACKING_URI, or else MLflow's own default."""
        self.experiment_name = experiment_name
        self.tracking_uri = tracking_uri
        self.has_finished = False

    def open(self, run: RunDir, *, step: int) -> None:
        # a server that is not there is noticed after seconds, not after minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self.make_metric, self.make_param = Metric, Param
        self.client = MlflowClient(tracking_uri=self.tracking_uri)
        known = read_id(run, "mlflow")
        self.is_new = known is None
        self.run_id = known or self.create(run.path.name)
        keep_id(run, "mlflow", self.run_id)
        self.client.update_run(self.run_id, status="RUNNING")
        server = self.tracking_uri or "MLflow's default store"
        log.info("MLflow run %s of %s in %s", self.run_id, self.experiment_name, server)

    def create(self, name: str) -> str:
        """Create a run of this name, and the experiment if it is not there. Return the run's id."""
        found = self.client.get_experiment_by_name(self.experiment_name)
        experiment = (
            found.experiment_id if found else self.client.create_experiment(self.experiment_name)
        )
        return self.client.create_run(experiment, run_name=name).info.run_id

    def write(self, line: Mapping[str, object], scalars: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        values = [self.make_metric(tag, value, now, step) for tag, value in scalars.items()]
        self.client.log_batch(self.run_id, metrics=values)

    def image(self, name: str, image: Tensor, step: int) -> None:
        self.client.log_image(self.run_id, to_pixels(image), key=name, step=step)

    def text(self, name: str, text: str) -> None:
        self.client.log_text(self.run_id, text, f"{name}.yaml")

    def hparams(
        self, settings: Mapping[str, object], swept: Sequence[str], metric: str | None
    ) -> None:
        if not self.is_new:
            return  # MLflow's parameters never change; the text of the configuration does
        every = [
            self.make_param(key, str(value)[:500])
            for key, value in plain_settings(settings).items()
        ]
        for start in range(0, len(every), PARAMS):
            self.client.log_batch(self.run_id, params=every[start : start + PARAMS])

    def finish(self) -> None:
        self.client.set_terminated(self.run_id, "FINISHED")
        self.has_finished = True

    def close(self) -> None:
        if not self.has_finished:
            self.client.set_terminated(self.run_id, "KILLED")
