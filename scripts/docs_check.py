"""Run every command block of the documentation, at a tiny scale.

python scripts/docs_check.py [PAGE ...]

A block is fenced with three backticks. The check knows four kinds:

- sh: each command is run in a temporary folder. Words that would download or train for hours are
  replaced (REPLACED, SCALED); placeholders such as RUN are folders that the check made itself.
- python and yaml: written to the file that the line before names, as in "`drift.py`:".
- sh, python or yaml after a line <!-- not run: REASON -->: not run.
- without a language: output, not run.

Anything else is a mistake in the page.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- not run: (.+) -->\n\Z")
FILE = re.compile(r"`([\w/.]+)`:\n\n\Z")

REPLACED = {
    "dataset=cifar10": "dataset=demo",
    "metrics=fid50k_train": "metrics=demo",
    "extractor=dinov2": "extractor=efficientnet_lite0",
    "small_models": "biggan",  # three rows instead of twelve
}
"""Words that would download something or run for long, and what is run instead."""

SCALED = (
    "steps=2",
    "batch_size=4",
    "architecture.width=0.02",
    "log.every=1",
    "samples.every=1",
    "samples.num=4",
    "checkpoint.every=2",
    "extractor.resolution=32",
    "metrics.num_samples=8",
    "metrics.every=2",
    "device=cpu",
)
"""Settings that make a training run tiny. They replace what the page has for these keys."""

SCORED = ("extractor.resolution=32", "metrics.num_samples=8")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int  # of the opening fence, from 1
    language: str
    text: str
    reason: str | None  # why it is not run
    file: str | None  # where its text goes

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    """One typed command: variables in front of it, and its words."""

    env: dict[str, str]
    words: list[str]


def read_blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        reason, file = REASON.search(before), FILE.search(before)
        if match[1] == "sh":
            file = None  # a name in the sentence before commands
        line = before.count("\n") + 1
        blocks.append(Block(page, line, match[1], match[2], reason and reason[1], file and file[1]))
    return blocks


def split_commands(text: str) -> Iterator[Command]:
    """Return the commands of a shell block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        env = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            key, _, env[key] = words.pop(0).partition("=")
        if words:
            yield Command(env, words)


def find_mistakes(block: Block, files: Sequence[str] = ()) -> str | None:
    """Return what is wrong with a block that can neither be run nor is marked; None if nothing is.

    `files` are the Python files that the page has written before.
    """
    if block.reason or not block.language:
        return None
    if block.language in ("python", "yaml"):
        return None if block.file else f"{block.place}: no line before it names a file, as `x.py`:"
    if block.language != "sh":
        return f"{block.place}: {block.language} is none of sh, python, yaml"
    for _, words in split_commands(block.text):
        if words[0] != "crgan" and not (words[0] == "python" and words[1] in files):
            return (
                f"{block.place}: '{shlex.join(words)}' cannot be run here. Put "
                "<!-- not run: REASON --> before the block, or write what can be run."
            )
    return None


def scale_down(words: Sequence[str]) -> list[str]:
    """Return the words of a crgan command with everything that takes long or downloads replaced."""
    _, verb, *rest = (REPLACED.get(word, word) for word in words)
    scale = {"train": scale_train, "eval": scale_eval, "reproduce": scale_reproduce}
    if verb == "artefacts":
        rest += ["--n", "100", "--pixels-only"]
    return [verb, *scale[verb](rest)] if verb in scale else [verb, *rest]


def split_settings(words: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary; other words are left out."""
    parts = [word.partition("=") for word in words]
    return {key: value for key, equals, value in parts if equals}


def scale_train(rest: list[str]) -> list[str]:
    """A training run or a sweep of two steps."""
    if {"--help", "--cfg"} & set(rest):
        return rest
    if "--from" in rest:
        return ["steps=8" if word.startswith("steps=") else word for word in rest]
    chosen, scaled = split_settings(rest), split_settings(SCALED)
    if chosen.get("architecture") == "dense":
        del scaled["architecture.width"]
    experiment = chosen.get("experiment", "demo")
    translates = re.search("pix2pix|cyclegan|stargan", experiment)
    if experiment.endswith("facades"):
        scaled["metrics.num_samples"] = "4"  # all that the folders have
    elif experiment == "stargan_celeba":
        scaled["dataset"] = "demo_attributes"
    elif "dataset" not in chosen and experiment != "demo" and not translates:
        scaled |= {"dataset": "demo", "metrics": "demo"}
    if "class_fid" in chosen.get("metrics.measures", ""):
        scaled["metrics.num_samples"] = "100"  # it needs two of each class
    if experiment.startswith("sweep"):
        scaled["hydra.sweeper.params.seed"] = "1"
    if chosen.get("dataset") == "folder" and not translates:
        scaled["metrics"] = "demo"
    elif not {"dataset", "dataset.root", "dataset.fraction"} & chosen.keys():
        scaled["dataset.fraction"] = "0.005"
    if "optimizer.warmup" in chosen:
        scaled["optimizer.warmup"] = "1"
    if chosen.get("extractor", "none") not in ("none", "efficientnet_lite0"):
        del scaled["extractor.resolution"]  # a page's own extractor has none
    typed = [word for word in rest if word.partition("=")[0] not in scaled]
    return [*typed, *(f"{key}={value}" for key, value in scaled.items())]


def scale_eval(rest: list[str]) -> list[str]:
    """An evaluation of a few images."""
    if "generated/" in rest:
        few = ["extractor.resolution=32", "metrics.measures=[fid,kid]"]
        return [*rest, "extractor=efficientnet_lite0", *few]
    if "--samples" in rest or any(word.startswith(("metrics=", "extractor=")) for word in rest):
        return [*rest, *SCORED]
    return rest


def scale_reproduce(rest: list[str]) -> list[str]:
    """A table at the demo scale, with a step or two per row."""
    if "--dry-run" in rest or "--list" in rest:
        return rest
    scale = [] if "--scale" in rest else ["--scale", "demo"]
    return [*rest, *scale, "--seeds", "1", *(word for word in SCALED if "width" not in word)]


# --- running --------------------------------------------------------------------------------------


class Failure(Exception):
    """A command of a page failed."""


def prepare(folder: Path) -> None:
    """Make what the pages' placeholders stand for."""
    photos(folder / "photos")
    photos(folder / "by_class/cats")
    photos(folder / "by_class/dogs")
    photos(folder / "sketches", 40)  # 48 pixels wide: two images side by side
    photos(folder / "facades/train", 8)
    photos(folder / "facades/test", 4)
    for domain in ("trainA", "trainB", "testA", "testB"):
        photos(folder / "horse2zebra" / domain, 8)
    photos(folder / "faces")
    rows = (f"{number}.png,{number % 2},{number // 2 % 2}" for number in range(100))
    (folder / "faces/labels.csv").write_text("\n".join(["file,Male,Young", *rows]))
    for name, other in (("drawing", "0"), ("large", "1")):
        shutil.copy(folder / f"photos/{other}.png", folder / f"{name}.png")
    for name, source in (("photos", "photos"), ("maps", "sketches")):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            for path in sorted((folder / source).iterdir()):
                file.write(path, path.name)
    load_everything(folder)
    run(folder, Command({}, ["crgan", "train", "regularizer=none", "out=OTHER_RUN"]))
    run(folder, Command({}, ["crgan", "train", "experiment=demo_pix2pix", "out=PIX2PIX_RUN"]))
    classes = ["architecture=resnet_sngan", "architecture.conditional=true"]
    run(folder, Command({}, ["crgan", "train", *classes, "out=CONDITIONAL_RUN"]))
    shutil.copy(folder / "RUN/checkpoints/best.pt", folder / "checkpoint.pt")
    run(folder, Command({}, ["crgan", "sample", "RUN", "--n", "8", "--out", "images.zip"]))
    run(folder, Command({}, ["crgan", "eval", "RUN", "--export", "folders"]))
    for name in ("generated", "real"):
        shutil.copytree(folder / "folders" / name, folder / name)


def load_everything(folder: Path) -> None:
    """Train RUN in this process, so that each child starts with all that a run imports."""
    before = Path.cwd()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = call(["crgan", "train", "dataset.fraction=0.03", "out=RUN"])
    os.chdir(before)
    if code:
        raise Failure("crgan train out=RUN failed")


def photos(folder: Path, count: int = 100) -> None:
    """Write random photos of unequal sizes."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (40 + number % 5, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def run(folder: Path, command: Command) -> None:
    """Run one command in `folder`, in a child of this process: it has torch imported already."""
    log = folder / "output.txt"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            raise Failure(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        return
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        os.environ.update(command.env | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])})
        sys.path.insert(0, str(folder))
        code = call(command.words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def call(words: list[str]) -> int:
    """Run one command in this process; return its exit code."""
    from crgan_cli.commands import main

    if words[0] == "python":
        import runpy

        runpy.run_path(words[1], run_name="__main__")
        return 0
    return main.run_command(scale_down(words))


def check_page(folder: Path, page: Path) -> int:
    """Run a page's blocks in order; return how many commands were run."""
    files: list[str] = []
    number = 0
    for block in read_blocks(page):
        if mistake := find_mistakes(block, files):
            raise Failure(mistake)
        if block.reason or not block.language:
            continue
        if block.file:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            files.append(block.file)
            continue
        for command in split_commands(block.text):
            began = time.monotonic()
            try:
                run(folder, command)
            except Failure as failure:
                text = f"{block.place}: {shlex.join(command.words)} failed:\n{failure}"
                raise Failure(text) from None
            number += 1
            print(f"  {time.monotonic() - began:5.1f} s  {shlex.join(command.words)}", flush=True)
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="(all)")
    pages = [page.resolve() for page in parser.parse_args().pages] or list(PAGES)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    failed = total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["CRGAN_CACHE"] = str(folder / "cache")
        prepare(folder)
        for page in pages:
            print(page.relative_to(ROOT), flush=True)
            try:
                total += check_page(folder, page)
            except Failure as failure:
                failed += 1
                print(f"FAILED {failure}", flush=True)
    print(f"{total} commands run, {failed} of {len(pages)} pages failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
