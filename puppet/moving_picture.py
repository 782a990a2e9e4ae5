"""Convert a video to an animated WebP, as the README shows it.

python -m puppet.moving_picture output/demo/ref_img_ref_video_dance_1.2_2_1_cmp.mp4 assets/readme/demo.webp
"""

from pathlib import Path

from PIL import Image

from musepose.cli.entry import Parser, run_script
from musepose.media.video_reader import probe, read_frames
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file


def moving_picture(video: Path, height: int) -> tuple[list[Image.Image], int]:
    """→ the resized frames, and the duration of each in milliseconds. Raises UserError: not a video."""
    info = probe(video)
    width = round(info.width * height / info.height)
    frames = [Image.fromarray(f).resize((width, height), Image.Resampling.LANCZOS) for f in read_frames(video)]
    return frames, round(1000 / info.rate)


def main() -> None:
    parser = Parser(prog="-m puppet.moving_picture", description=__doc__.split("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("picture", type=Path, help="the file to write, .webp")
    parser.add_argument("--height", type=int, default=256, help="pixels (default 256)")
    parser.add_argument("--quality", type=int, default=60, help="1 to 100 (default 60)")
    given = parser.parse_args()
    if given.picture.suffix.lower() != ".webp":
        raise UserError(f"cannot write {given.picture.name}: end its name in .webp")
    for name, value, most in (("height", given.height, 4096), ("quality", given.quality, 100)):
        if not 1 <= value <= most:
            raise UserError(f"--{name} is {value}: give 1 to {most}")
    frames, duration = moving_picture(given.video, given.height)
    with complete_file(given.picture) as partial:
        settings = {"duration": duration, "loop": 0, "quality": given.quality, "method": 6}
        frames[0].save(partial, format="WEBP", save_all=True, append_images=frames[1:], **settings)
    print(f"wrote {given.picture}: {len(frames)} frames, {given.picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_script(main)
