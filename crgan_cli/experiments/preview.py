"""What the tables hold and what their runs cost, as text, before anything is trained."""

from collections.abc import Sequence
from functools import lru_cache

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import Settings, flatten, to_plain
from crgan_cli.experiments.job import count_steps_done
from crgan_cli.experiments.paper_tables import PaperRow, PaperTable, Scale
from crgan_cli.experiments.plan import TableJob, choose_scale, job_overrides
from crgan_cli.experiments.run_table import FINISHED, NEW
from crgan_cli.report.tables import Column, align_cells
from crgan_cli.system.numbers import format_bytes, format_duration, format_time
from crgan_cli.training.costs import disk_bytes, estimate_flops, gpu_minutes

FREE = ("loss=", "augment=", "published.")
"""Overrides that change no cost in these tables: neither the networks nor how often they are
called (loss=relativistic would)."""

COUNTED = (
    *("task", "dataset", "architecture", "loss", "regularizer", "augment", "augment_both"),
    *("optimizer", "batch_size"),
)
"""The settings that the FLOP of a step follow from."""

ON_CPU = (
    "one CPU thread [measured, or derived from that: see the YAML file; what is typed: by FLOP]"
)
ON_GPU = "one H200 [derived: performance model, not measured]"


def format_title(table: PaperTable, scale: Scale) -> str:
    """Return the title. At the demo scale it warns against comparing."""
    return " – ".join(filter(None, (table.title, scale.title)))


def format_head(table: PaperTable, scale: Scale) -> list[str]:
    """Return what stands above a table's rows. Its note is of the published size."""
    note = [f"note: {table.note}"] if table.note and not scale.title else []
    return [f"published: {table.protocol}", *note, ""]


def list_tables(tables: Sequence[PaperTable], scale: Scale) -> str:
    """Return every table with its rows and what a run of each costs, as text."""
    blocks = [list_table(table, scale) for table in tables]
    about = f"A run is a row with one seed. GPU: {ON_GPU}; CPU: {ON_CPU}; ?: not known."
    return "\n\n".join([*blocks, about])


def list_table(table: PaperTable, scale: Scale) -> str:
    """Return a table's rows with their published numbers and their costs, as text."""
    settings = [compose_for_cost(row, choose_scale(table, scale)) for row in table.rows]
    found = list(zip(table.rows, settings, strict=True))
    columns = [
        Column("row", False, [row.name for row in table.rows]),
        Column("method", False, [row.label for row in table.rows]),
        Column("published", True, [published_number(row, config) for row, config in found]),
        Column("a run", True, [format_cost(row, scale, config) for row, config in found]),
    ]
    lines = ("  ".join(line).rstrip() for line in align_cells(columns))
    title = f"{table.name}: {format_title(table, scale)}"
    return "\n".join([title, *format_head(table, scale), *(f"  {x}" for x in lines)])


def compose_for_cost(row: PaperRow, scale: Scale) -> Settings:
    """Compose a row without what changes no cost: once for all rows that differ in that alone."""
    words = job_overrides(row, scale, ())
    return _compose(tuple(word for word in words if not word.startswith(FREE)))


@lru_cache
def _compose(overrides: tuple[str, ...]) -> Settings:
    return to_plain(compose(overrides))


def published_number(row: PaperRow, config: Settings) -> str:
    """Return the row's own published number, or else its experiment's; "-" without one."""
    own = [word.partition("=")[2] for word in row.overrides if word.startswith("published.fid=")]
    fid = own[0] if own else config["published"]["fid"]
    return "-" if fid in (None, "null") else f"{float(fid):.2f}"


def format_cost(row: PaperRow, scale: Scale, config: Settings) -> str:
    """Return the time of a whole run, and on what."""
    on_cpu = cpu_minutes(row, scale)
    minutes = on_cpu if on_cpu is not None else gpu_minutes(config, int(config["steps"]))
    where = "" if minutes is None else " CPU" if on_cpu is not None else " GPU"
    return f"{format_minutes(minutes)}{where}"


def preview_jobs(
    table: PaperTable, scale: Scale, jobs: Sequence[TableJob], states: Sequence[str]
) -> str:
    """Return the runs, what is left of each, and what that costs, as text."""
    chosen = choose_scale(table, scale)
    minutes = [minutes_left(job, chosen, state) for job, state in zip(jobs, states, strict=True)]
    columns = [
        Column("run", False, [job.folder.name for job in jobs]),
        Column("row", False, [job.row.label for job in jobs]),
        Column("seed", False, [str(job.seed) for job in jobs]),
        Column("state", False, states),
        Column("left", False, [format_minutes(left) for left in minutes]),
        Column("command", False, [job.command for job in jobs]),
    ]
    return "\n".join(
        [
            format_title(table, scale),
            *format_head(table, scale),
            *("  ".join(line).rstrip() for line in align_cells(columns)),
            "",
            *format_totals(scale, jobs, states, minutes),
        ]
    )


def cpu_minutes(row: PaperRow, scale: Scale) -> float | None:
    """Return the minutes of a whole run on one CPU thread; None if it is meant for a GPU."""
    return row.cpu_minutes if scale.cpu_minutes is None else scale.cpu_minutes


def minutes_left(job: TableJob, scale: Scale, state: str) -> float | None:
    """Return the minutes that a run still needs; None if unknown.

    scale: the table's own, as `choose_scale` returns it. Its minutes on a CPU, or the row's, are
    those of the row without what was typed.
    """
    steps = int(job.config["steps"])
    done = 0 if state == NEW else steps if state == FINISHED else count_steps_done(job.folder)
    on_cpu = cpu_minutes(job.row, scale)
    if on_cpu is None:
        return gpu_minutes(job.config, steps, done)
    untouched = job.overrides == job_overrides(job.row, scale, ())
    own = job.config if untouched else compose_for_cost(job.row, scale)
    share = work_left(job.config, done, own)
    return None if share is None else on_cpu * share


def work_left(config: Settings, done: int, whole: Settings) -> float | None:
    """Return the FLOP from step `done` on as a share of those of a `whole` run; None if unknown."""
    steps, all_steps = int(config["steps"]), int(whole["steps"])
    if steps <= done or all(config[key] == whole[key] for key in COUNTED):
        return max(0, steps - done) / all_steps
    left, total = estimate_flops(config, steps, done), estimate_flops(whole, all_steps)
    return None if left is None or not total else left / total


def format_totals(
    scale: Scale,
    jobs: Sequence[TableJob],
    states: Sequence[str],
    minutes: Sequence[float | None],
) -> list[str]:
    """Return the total cost in time and disk, as lines."""
    counted = [each for each in minutes if each is not None]
    where = ON_CPU if all(cpu_minutes(job.row, scale) is not None for job in jobs) else ON_GPU
    unknown = len(minutes) - len(counted)
    more = f", without {unknown} runs of unknown cost" if unknown else ""
    done = states.count("finished")
    return [
        f"{len(jobs)} runs, {done} finished; "
        f"left: {format_duration(60 * sum(counted))} on {where}{more}",
        f"disk: {format_bytes(sum(checkpoint_size(jobs)))} of checkpoints",
    ]


def checkpoint_size(jobs: Sequence[TableJob]) -> list[int]:
    """Return the bytes per run. Networks of equal settings are built once."""
    known: dict[tuple[str, ...], int] = {}
    found = []
    for job in jobs:
        kinds = ("architecture", "ema", "checkpoint")
        key = tuple(str(flatten(job.config[kind])) for kind in kinds)
        if key not in known:
            known[key] = disk_bytes(job.config)
        found.append(known[key])
    return found


def format_minutes(minutes: float | None) -> str:
    """Return minutes in the unit that fits; ? if unknown."""
    return "?" if minutes is None else format_time(60 * minutes)
