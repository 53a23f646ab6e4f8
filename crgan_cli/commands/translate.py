"""`crgan translate`: images through a trained generator that translates."""

import argparse

from crgan_cli.commands.sample import parse_path, parse_positive_int, parse_run, parse_seed

help = "Translate images with a trained run: a file, a folder or a zip."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = (
        "Translate images of any size: each is padded to what the generator takes, and cropped "
        "back. The same file and seed give the same image, alone or in a folder, and that of the "
        "run's grids and metrics. Names are kept; all become PNGs."
    )
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=parse_run)
    add("input", metavar="INPUT", type=parse_path, help="an image, a folder or a zip of images")
    add(
        "--out",
        type=parse_path,
        required=True,
        metavar="PATH",
        help="FILE.png, FILE.zip or a folder",
    )
    add("--to", metavar="NAME", help="which translation, if the run has several: b, or +Smiling")
    add("--size", type=parse_size, metavar="keep|N", help="pixels of the shorter side (keep)")
    add("--tile", type=parse_positive_int, metavar="N", help="tile by tile: needs less memory")
    add("--half", choices=("a", "b"), help="of side-by-side files: which half is translated")
    add("--dropout", choices=("on", "off"), help="G's noise (as in the run's metrics)")
    add("--seed", type=parse_seed, help="of the noise (the run's)")
    add("--weights", choices=("ema", "raw"), help="which generator (ema if there is one)")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (auto)")


def parse_size(text: str) -> int | None:
    """Parse --size: None keeps the size."""
    return None if text == "keep" else parse_positive_int(text)


def run(args: argparse.Namespace) -> int:
    """Translate and write."""
    from crgan_cli.data.decode import quiet_pillow
    from crgan_cli.data.decoding import format_names
    from crgan_cli.errors import RunFailed
    from crgan_cli.evaluation import load
    from crgan_cli.evaluation.pictures import encode_png, open_file_writer
    from crgan_cli.evaluation.translate import (
        FileTranslator,
        Options,
        Untranslatable,
        list_inputs,
        require_other_place,
    )
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.device import resolve_device, watch_crowding
    from crgan_cli.system.progress import EvalProgress

    with log_to_stderr():
        files = list_inputs(args.input)
        require_other_place(args.input, args.out)
        device = resolve_device(args.device)
        # not kept: a checkpoint is four times as large as its generator
        model = load.load_generator(
            load.find_checkpoint(args.checkpoint, best=args.best), device, args.weights
        )
        translate = FileTranslator(
            model, device, Options(**{name: getattr(args, name) for name in Options._fields})
        )
        failed = []
        with (
            open_file_writer(args.out, single=len(files) == 1) as write,
            quiet_pillow(),
            EvalProgress(watch_crowding(device), "translating") as progress,
        ):
            for done, file in enumerate(files, start=1):
                try:
                    image = translate.translate_file(file)
                except Untranslatable as error:
                    failed.append(f"{file.name} ({error})")
                else:
                    write(file.output, encode_png(image))
                progress.show(done, len(files))
    if written := len(files) - len(failed):
        print(
            f"{written} images by step {model.step}, {model.weights} weights, "
            f"{translate.describe_mode()}: {args.out}"
        )
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(files)} files could not be translated: {format_names(failed)}."
        )
    return 0
