"""Write moving pictures: GIF and WebP with Pillow, MP4 with PyAV. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from crgan_cli.errors import UserError
from crgan_cli.system.atomic import atomic_path

MOVIES = (".gif", ".webp", ".mp4")
PALETTE_FRAMES = 16
"""Frames that the one palette of a GIF is chosen from: a palette each would flicker."""

CAPTION = 14  # pixels below a picture
GREY = (128, 128, 128)


def require_movie(path: Path, option: str = "--out") -> None:
    """Raise UserError if a movie cannot be written to `path`: before anything is drawn."""
    if path.suffix.lower() not in MOVIES:
        raise UserError(f"{option} {path}: a movie is FILE.gif, FILE.webp or FILE.mp4.")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder with the name of a file. Give another one.")
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise UserError(
                f"{option} {path}: MP4 needs the package av. Type: pip install 'crgan[video]', or "
                "give FILE.gif or FILE.webp."
            ) from None


def save_movie(frames: Sequence[Image.Image], path: Path, fps: float, hold: float = 0.0) -> None:
    """Write RGB frames of one size. The last one stays for `hold` more seconds.

    GIF and WebP start again at their end; players decide it for MP4. Equal frames give equal bytes.
    Raises OSError.
    """
    with atomic_path(path) as partial:
        if path.suffix.lower() == ".mp4":
            stays = [frames[-1]] * round(hold * fps)
            _write_mp4([*frames, *stays], partial, fps)
            return
        milliseconds = [round(1000 / fps)] * len(frames)
        milliseconds[-1] += round(1000 * hold)
        kind = path.suffix[1:].lower()
        shown = _share_palette(frames) if kind == "gif" else list(frames)
        options = {"lossless": True} if kind == "webp" else {"disposal": 1}
        shown[0].save(
            partial,
            kind,
            save_all=True,
            append_images=shown[1:],
            duration=milliseconds,
            loop=0,
            **options,
        )


def _share_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Map all frames to one palette of 256 colours, without dithering."""
    chosen = frames[:: -(-len(frames) // PALETTE_FRAMES)]
    width, height = frames[0].size
    joined = Image.new("RGB", (width, height * len(chosen)))
    for number, frame in enumerate(chosen):
        joined.paste(frame, (0, number * height))
    palette = joined.quantize(256)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _write_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """H.264, which has even sides only: others get a black row or column."""
    from fractions import Fraction

    import av

    width, height = frames[0].size
    even = (width + width % 2, height + height % 2)
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = even
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "14", "threads": "1"}  # one thread: the same bytes everywhere
        for frame in frames:
            padded = Image.new("RGB", even)
            padded.paste(frame)
            # the encoder's own conversion reads beyond the frame, and gives other bytes each time
            shown = av.VideoFrame.from_image(padded).reformat(format=stream.pix_fmt)
            file.mux(stream.encode(shown))
        file.mux(stream.encode())


def caption(picture: Image.Image, text: str, size: tuple[int, int]) -> Image.Image:
    """Return a frame of `size` with the picture at the top left and grey words at the bottom."""
    frame = Image.new("RGB", size)
    frame.paste(picture)
    ImageDraw.Draw(frame).text((2, size[1] - CAPTION + 1), text, fill=GREY)
    return frame
