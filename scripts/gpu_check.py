"""What only a GPU can answer: eleven questions, one line each.

python scripts/gpu_check.py                  # on a machine with a GPU and crgan installed;
                                             # else PYTHONPATH=. before it, in the checkout
python scripts/gpu_check.py bits speed       # some of the questions
CHECK_DEVICE=cpu python scripts/gpu_check.py # a rehearsal with tiny networks: is the script well?
CHECK_LOGS=FOLDER python scripts/gpu_check.py # all that each question printed, into FOLDER

PASS: the answer is as the documentation claims, and the line says what was seen. FAIL: it is not,
something broke, or the question's own time limit is over; the line ends with the error. Each
question has a process of its own, so that one that breaks the device does not break the next. The
exit code is 1 if any failed. `scripts/bench.py` has the long tables.
"""

import faulthandler
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from benchmarks.check import farthest, learnt
from benchmarks.checkout import environment
from benchmarks.game import Ours, compose_config, random_images
from benchmarks.timing import machine, measure_seconds
from torch import Tensor

from crgan_cli.config.compose import compose
from crgan_cli.errors import RunFailed
from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.precision_recall import precision_recall
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.gan import adversary
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.system import rng
from crgan_cli.system.device import resolve_device
from crgan_cli.training.start import train_run
from crgan_cli.training.trainer import Trainer

DEVICE = os.environ.get("CHECK_DEVICE", "cuda")
ON_GPU = DEVICE != "cpu"
SMALL = () if ON_GPU else ("architecture.width=0.02", "batch_size=4", "engine.threads=1")
PATIENCE = 1 if ON_GPU else 5  # times the limits
BEGAN = time.monotonic()
CORES = os.cpu_count() or 1
AT_ONCE = max(1, min(3, CORES // 4))  # questions, which share the cores

GAMES = (
    ("sndcgan", "icr"),
    ("resnet", "[cr,r1]", "regularizer.every=2"),  # a lazy penalty by the adjoint network
    ("biggan_lite", "icr", "architecture.conditional=true"),
    ("dcgan", "jsr", "architecture.batch_norm=true"),  # a penalty by double backward
    ("pggan", "[gp,drift]", "architecture.fmap_max=64"),  # the same, with mixed samples
)
TRANSLATIONS = (
    ("unet", "bcr", "ema.decay=0.9"),
    ("translator", "cr", "ema.decay=0.9"),
    ("stargan", "[classification,cr,gp]", "ema.decay=0.9"),
)
METHODS = (
    ("sndcgan", "icr", "augment_both=diffaugment"),
    ("dcgan", "r1", "augment_both=ada"),
    ("sndcgan", "[cr,lecam]"),
    ("sndcgan", "[cr,r1]", "accumulate=2"),
)
EXACT = ("engine.precision=fp32", "engine.fold=never", "engine.deterministic=true")

# every kind of turn that a run has: measured or not, lazy or not, before and after the average's
# start, with rates that fall
STEPS = 30 if ON_GPU else 12
CHANGING = (f"steps={STEPS}", "log.every=3", "ema.start=8", "optimizer.decay=linear")

LONG = 120 if ON_GPU else 12
RUN = [
    *f"experiment=demo device={DEVICE} regularizer=icr regularizer.every=2 ema.decay=0.9".split(),
    *f"steps={LONG} log.every=4 checkpoint.every={LONG // 2} samples.every={LONG // 2}".split(),
    *f"metrics.every={LONG // 2} engine.deterministic=true".split(),
    *(
        "metrics.num_samples=400" if ON_GPU else "metrics.num_samples=8 extractor.resolution=32"
    ).split(),
    *SMALL,
]
KILLED_AT = LONG - 2

GROWING = [
    *f"experiment=demo_pggan device={DEVICE} metrics=none engine.deterministic=true".split(),
    *["task.fade_images=128", "task.stable_images=96", "batch_size=16", "steps=60", "log.every=3"],
    *SMALL,
]

# of the player's longest one. A ReLU at 0 is turned by rounding: two memory formats on one CPU lie
# up to 5.5e-3 apart (RESULTS.md)
FARTHEST_GRADIENT = 1e-2


# --- the questions -------------------------------------------------------------------------------


def captured() -> str:
    """In the best precision, as `crgan train` would: both players' turns are captured."""
    seen = []
    for architecture, regularizer, *words in GAMES:
        ours = build(architecture, regularizer, "engine=auto", "engine.precision=auto", *words)
        ours.run(8)
        means = [value for step in read_log(ours, 4) for value in step.values()]
        kinds = list(getattr(ours.engine, "captured", ()))
        ours.engine.end()
        assert all(map(math.isfinite, means)), f"{architecture}: {means}"
        seen.append(f"{architecture} {len(kinds)}")
        if ON_GPU:
            assert {turn.who for turn in kinds} == {"d", "g"}, f"{architecture}: {kinds}"
    return f"kinds of turns that were captured: {', '.join(seen)}"


def bits() -> str:
    """Graphs and eager: every weight, moment, average and logged number."""
    return require_equal_bits(GAMES)


def translation() -> str:
    """The same for two players' worth of networks, paired and unpaired."""
    return require_equal_bits(TRANSLATIONS)


def methods() -> str:
    """The same where T is G's concern too, and where a turn has parts."""
    return require_equal_bits(METHODS)


def repeats() -> str:
    """Two equal runs as `crgan train` has them, without engine.deterministic=true."""
    apart = []
    games = (*GAMES, *TRANSLATIONS, *METHODS)
    for architecture, regularizer, *words in games:
        states = []
        for _ in range(2):
            ours = build(architecture, regularizer, "engine=auto", "engine.precision=auto", *words)
            ours.run(12)
            states.append({name: value.cpu().clone() for name, value in learnt(ours).items()})
            ours.engine.end()
        one, other = states
        if unequal := [name for name in one if not torch.equal(one[name], other[name])]:
            apart.append(f"{' '.join((architecture, regularizer, *words))} {len(unequal)} tensors")
    assert not apart, f"of {len(games)} games do not repeat: {'; '.join(apart)}"
    return f"{len(games)} games, 12 steps: run twice, equal bit by bit"


def gradients() -> str:
    """One fp32 step with the same random numbers on the GPU and on the CPU."""
    worst = (0.0, "none")
    for architecture, regularizer, *words in GAMES:
        sides = []
        for device in (DEVICE, "cpu"):
            # D's step must not change it: Adam divides by |gradient|, which enlarges rounding
            still = ("optimizer.lr_g=1e-30", "optimizer.lr_d=1e-30")
            given = (*words, "engine=eager", *EXACT, "batch_size=16", *still, *SMALL)
            with drawn_on_cpu():
                ours = build(architecture, regularizer, *given, device=device)
                ours.run(1)
            sides.append({who: player_gradients(ours, who) for who in "dg"})
        here, cpu = sides
        for who in "dg":
            longest = max(map(torch.linalg.vector_norm, cpu[who].values()))
            for name, gradient in cpu[who].items():
                apart = float(torch.linalg.vector_norm(here[who][name] - gradient) / longest)
                worst = max(worst, (apart, f"{architecture} {who}.{name}"))
    apart, name = worst
    assert apart <= FARTHEST_GRADIENT, f"{apart:.1e} of the longest gradient: {name}"
    return f"gradients are the CPU's; farthest: {apart:.1e} of the longest ({name})"


def failure() -> str:
    """A turn that waits for the device cannot be captured: is the run saved, and is it resumed?"""
    with TemporaryDirectory() as folder:
        run, whole = Path(folder, "run"), Path(folder, "whole")
        with patch.object(adversary, "diagnostics", diagnostics_that_wait):
            try:
                train(run)
            except RunFailed as error:
                said = " ".join(str(error).split())
            else:
                assert not ON_GPU, "no capture failed"
                return "not asked: there are no graphs on a CPU"
        assert "diagnostics_that_wait" in said, f"the line is not named: {said}"
        assert list(run.glob("checkpoints/step_*.pt")), f"nothing is saved: {said}"
        crgan("train", "--from", str(run), "engine=eager")
        crgan("train", *RUN, f"out={whole}", "engine=eager")
        require_equal_lines(run, whole)
        return f"saved and resumed without graphs, equal to a run without any; it said: {said}"


def resume() -> str:
    """Killed between checkpoints and resumed, against never stopped: every line of the log."""
    with TemporaryDirectory() as folder:
        run, whole = Path(folder, "run"), Path(folder, "whole")
        crgan("train", *RUN, f"out={whole}")
        with patch.object(Trainer, "train_step", killed_at(KILLED_AT)), suppress(Killed):
            train(run)
        crgan("train", "--from", str(run))
        return f"killed and resumed: {require_equal_lines(run, whole)} lines equal bit by bit"


def growth() -> str:
    """Through all resolutions, each with graphs of its own: equal to a run without any."""
    with TemporaryDirectory() as folder:
        run, eager = Path(folder, "run"), Path(folder, "eager")
        crgan("train", *GROWING, f"out={run}")
        crgan("train", *GROWING, f"out={eager}", "engine=eager")
        return f"4 to 32 pixels: {require_equal_lines(run, eager)} lines equal bit by bit"


def frechet() -> str:
    """The metrics' linear algebra, of full rank and not, against the CPU's."""
    dims = 512 if ON_GPU else 64
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4 * dims, dims, generator=generator) * scale for scale in (1.0, 1.1))
    seen = []
    for count, near in ((4 * dims, 1e-8), (dims // 2, 1e-6)):
        here, cpu = (
            frechet_distance(
                Moments.from_features(x[:count].to(at)), Moments.from_features(y[:count].to(at))
            )
            for at in (DEVICE, "cpu")
        )
        assert math.isclose(here, cpu, rel_tol=near), f"{count} x {dims}: {here} and {cpu}"
        seen.append(f"{here:.6f}")
    here, cpu = (precision_recall(x.to(at), y.to(at)) for at in (DEVICE, "cpu"))
    assert here == cpu, f"{here} and {cpu}"
    return f"the CPU's distances, {seen[0]} and {seen[1]} without full rank; precision and recall"


def speed() -> str:
    """Milliseconds a step of SNDCGAN with ICR, 64 images."""
    steps = 100 if ON_GPU else 2
    rows = []
    for engine, precision in (("eager", "fp32"), ("eager", "bf16"), ("auto", "bf16")):
        ours = build(*GAMES[0], f"engine={engine}", f"engine.precision={precision}")
        ours.run(10 if ON_GPU else 1)
        seconds = measure_seconds(partial(ours.run, steps), ours.engine.device)
        name = type(ours.engine).__name__.lower()
        ours.engine.end()
        rows.append(f"{name} {precision} {1e3 * seconds / steps:.2f}")
    return f"ms a step of sndcgan with icr: {', '.join(rows)}"


LIMITS: dict[Callable[[], str], int] = {
    captured: 40,
    bits: 90,
    translation: 60,
    methods: 60,
    repeats: 60,
    gradients: 60,
    failure: 120,
    resume: 110,
    growth: 80,
    frechet: 30,
    speed: 40,
}
"""Question -> seconds, about twice what an H100's machine took with three at once."""


# --- what they share -----------------------------------------------------------------------------


def require_equal_bits(games: Sequence[tuple[str, ...]]) -> str:
    """Each game with graphs and eagerly: equal weights, moments, averages and logged numbers."""
    for architecture, regularizer, *words in games:
        logs, states = [], []
        for engine in ("engine=auto", "engine=eager"):
            ours = build(architecture, regularizer, engine, *EXACT, *CHANGING, *words)
            logs.append(read_log(ours, STEPS))
            states.append({name: value.cpu().clone() for name, value in learnt(ours).items()})
            ours.engine.end()
        one, other = states
        unequal = [name for name in one if not torch.equal(one[name], other[name])]
        apart = f"{architecture}: {len(unequal)} of {len(one)} differ, most {farthest(*states)}"
        assert not unequal, apart
        assert logs[0] == logs[1], f"{architecture}: the logged numbers differ"
    return f"{len(games)} games, {STEPS} steps: graphs and eager are equal bit by bit"


def build(architecture: str, regularizer: str, *words: str, device: str = DEVICE) -> Ours:
    """A game ready for its first step."""
    print(f"{time.monotonic() - BEGAN:.0f} s:", architecture, regularizer, *words, file=sys.stderr)
    config = compose_config(architecture, regularizer, *SMALL, *words)
    return Ours(config, random_images(config, 8 * config.batch_size), torch.device(device))


def read_log(ours: Ours, steps: int) -> list[dict[str, float]]:
    """So many steps; the means of each log window, and of the last one."""
    trainer, read = ours.trainer, []
    for number in range(1, steps + 1):
        trainer.train_step()
        if trainer.should_log(trainer.step) or number == steps:
            read.append(trainer.window.pop_means())
    return read


def player_gradients(ours: Ours, who: str) -> dict[str, Tensor]:
    """The gradients of a player's last turn, float64 on the CPU."""
    named = ours.engine.players[who].named_parameters()
    return {name: p.grad.double().cpu() for name, p in named if p.grad is not None}


@contextmanager
def drawn_on_cpu() -> Iterator[None]:
    """Random numbers of a step are the CPU's on every device."""

    def on_cpu(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *sizes, device, **options: draw(*sizes, device="cpu", **options).to(device)

    with ExitStack() as patches:
        for name in ("rand", "randn", "randint"):
            patches.enter_context(patch.object(rng, name, on_cpu(getattr(rng, name))))
        yield


def diagnostics_that_wait(
    scored: ScoredViews, diagnostics: Callable = adversary.diagnostics
) -> dict[str, Tensor]:
    """The numbers for the log, and one that the host asks for: no graph can hold that."""
    scored.scores["real"].sum().item()
    return diagnostics(scored)


class Killed(BaseException):
    """Stands in for kill -9: nothing catches it, nothing is saved."""


def killed_at(step: int) -> Callable[[Trainer], None]:
    """`train_step` until some step."""
    train_step = Trainer.train_step

    def step_or_die(trainer: Trainer) -> None:
        if trainer.step == step:
            raise Killed
        train_step(trainer)

    return step_or_die


def train(out: Path) -> None:
    """The run in this process."""
    typed = [*RUN, f"out={out}"]
    train_run(compose(typed), typed, {}, None)


def crgan(*words: str) -> None:
    """`crgan WORDS` in a process of its own."""
    command = [sys.executable, "-m", "crgan_cli", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, last_line(done.stderr)


def require_equal_lines(run: Path, whole: Path) -> int:
    """Count the lines of two logs, which are equal but for the speed."""
    one, other = (
        [
            {key: value for key, value in json.loads(line).items() if "speed" not in key}
            for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()
        ]
        for folder in (run, whole)
    )
    assert len(one) == len(other), f"{len(one)} and {len(other)} lines"
    for mine, other_line in zip(one, other, strict=True):
        assert mine == other_line, f"{mine} and {other_line}"
    return len(one)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


# --- asking --------------------------------------------------------------------------------------


def ask(question: str) -> bool:
    """Ask in a process of its own, and print the verdict."""
    limit = next(PATIENCE * each for asked, each in LIMITS.items() if asked.__name__ == question)
    variables = {
        **environment(),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_NUM_THREADS": str(max(1, CORES // AT_ONCE)),
    }
    command = [sys.executable, __file__, "--here", question]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=variables)
        passed, said = done.returncode == 0, last_line(done.stdout)
        if not passed:
            said = f"exit code {done.returncode}: {last_line(done.stderr) or said}"
        printed = done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        passed, said = False, f"no answer in {limit} s"
        printed = ((late.stdout or b"") + (late.stderr or b"")).decode(errors="replace")
    if folder := os.environ.get("CHECK_LOGS"):
        Path(folder, f"{question}.txt").write_text(printed, "utf-8")
    verdict = "PASS" if passed else "FAIL"
    print(f"{verdict} {question} ({time.monotonic() - began:.0f} s): {said[:900]}", flush=True)
    return passed


def main(words: list[str]) -> int:
    """Ask what is named, or everything. Return the exit code."""
    questions = {question.__name__: question for question in LIMITS}
    if words[:1] == ["--here"]:
        faulthandler.dump_traceback_later(0.9 * PATIENCE * LIMITS[questions[words[1]]])
        print(questions[words[1]]())
        return 0
    if unknown := [word for word in words if word not in questions]:
        print(f"{', '.join(unknown)}: no such question. Questions: {', '.join(questions)}.")
        return 2
    print(", ".join(f"{key} {value}" for key, value in machine(resolve_device(DEVICE)).items()))
    asked = words or list(questions)
    timed = [name for name in asked if name == speed.__name__]  # alone
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, [name for name in asked if name not in timed]))
    answers += map(ask, timed)
    return 0 if all(answers) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
