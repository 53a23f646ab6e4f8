"""TensorBoard: curves, pictures, the configuration, and one row of HPARAMS."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.loggers.base import Logger, plain_settings


class TensorBoard(Logger):
    """Event files in tensorboard/, one per session, of which each step is shown once."""

    def open(self, run: RunDir, *, step: int) -> None:
        # also at step 0: a run killed before its first checkpoint has logged steps too
        resumed = run.tensorboard.exists()
        self.writer = SummaryWriter(
            str(run.tensorboard), purge_step=step + 1 if resumed else None, flush_secs=10
        )

    def write(self, line: Mapping[str, object], scalars: Mapping[str, float], step: int) -> None:
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()  # a resumed run does not write again what a kill removes from memory

    def image(self, name: str, image: Tensor, step: int) -> None:
        self.writer.add_image(name, image, step)

    def text(self, name: str, text: str) -> None:
        self.writer.add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def hparams(
        self, settings: Mapping[str, object], swept: Sequence[str], metric: str | None
    ) -> None:
        # SummaryWriter.add_hparams would add a second run and a false point to the curve
        plain, metrics = plain_settings(settings), {f"metrics/{metric}": 0.0} if metric else {}
        columns = {key: plain[key] for key in swept if key in plain} or plain
        experiment, _, self.end = hparams(columns, metrics)  # the table opens on these columns
        _, start, _ = hparams(plain, metrics)
        for summary in (experiment, start):
            self.writer._get_file_writer().add_summary(summary)

    def finish(self) -> None:
        self.writer._get_file_writer().add_summary(self.end)

    def close(self) -> None:
        self.writer.close()
