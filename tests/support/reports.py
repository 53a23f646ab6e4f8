"""Reports made by hand, without any run behind them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from PIL import Image

from crgan_cli.report.model import Report, Row, RunFiles, Spread, Value
from crgan_cli.runs.status import Status

PROTOCOL = {
    "protocol": "demo_500_test",
    "headline": "fid",
    "extractor": "tiny",
    "extractor_sha256": "ab" * 32,
    "reference_split": "test",
    "num_real": 500,
    "num_samples": 400,
    "repeats": 3,
    "rounding": "uint8, to nearest",
    "resize": "none",
    "weights": "ema",
    "measures": {"kid_subsets": 7},
}


def run_of(
    path: Path,
    seed: int,
    fids: Sequence[float] = (30.0, 20.0),
    *,
    status: Status = Status.FINISHED,
    error: str = "",
    artefacts: Mapping[str, Mapping[str, object]] | None = None,
    samples: Path | None = None,
    config: Mapping[str, Value] | None = None,
) -> RunFiles:
    """A run that was evaluated at steps 100, 200, ... and logged two terms of its losses."""
    evals = tuple(
        {"step": 100.0 * (i + 1), "fid": fid, "fid_floor": 2.0, "kid": fid / 1000}
        for i, fid in enumerate(fids)
    )
    train = tuple(
        {"step": 10.0 * i, "terms/adversarial/d": 1.0 + seed / i, "terms/cr/real": 0.1 / i}
        for i in range(1, 21)
    )
    return RunFiles(
        path=path,
        status=status,
        error=error,
        config={"dataset.resolution": 32, **(config or {})},
        choices={},
        step=100 * len(fids),
        steps=200,
        seed=seed,
        train=train,
        evals=evals,
        protocol=PROTOCOL,
        headline="fid",
        published={"fid": 18.5, "source": "arXiv:0000.00000, table 1"},
        seconds=3600.0,
        device="cpu (1 threads)",
        images_per_second=100.0 * seed,
        peak_memory_bytes=2**30,
        samples=samples,
        artefacts=artefacts or {},
    )


def row_of(label: str, runs: Sequence[RunFiles], settings: Mapping[str, Value], **more) -> Row:
    """A row with the numbers of its runs' last evaluations."""
    numbers = {}
    for name in ("fid", "fid_floor", "kid"):
        values = tuple(run.evals[-1][name] for run in runs if run.evals)
        if values:
            deviation = stdev(values) if len(values) > 1 else None
            numbers[name] = Spread(values, fmean(values), deviation)
    return Row(label, settings, tuple(runs), numbers, float(len(runs)), "", (200,))._replace(**more)


def report_of(rows: Sequence[Row], **more) -> Report:
    """A report of rows in the order given."""
    keys = tuple(dict.fromkeys(key for row in rows for key in row.settings))
    made = Report("A title", "fid", "last", tuple(rows), keys, "", (), (PROTOCOL,), ())
    return made._replace(**more)


def sweep(folder: Path, **more) -> Report:
    """lambda 1, 10, 100 with two seeds each: means 15, 20, 25, each 1 up and down."""
    rows = [
        row_of(
            f"lambda={value}",
            [run_of(folder / f"{value}_{s}", s, (40.0, middle + (1, -1)[s - 1])) for s in (1, 2)],
            {"lambda": value},
        )
        for value, middle in ((10, 15.0), (1, 20.0), (100, 25.0))
    ]
    return report_of(rows, swept="lambda")


def picture(path: Path, shade: int) -> Path:
    """A grid's PNG of one shade, made on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "png")
    path.write_bytes(file.getvalue())
    return path
