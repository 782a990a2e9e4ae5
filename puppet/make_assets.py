"""Write the example files: an image and a dance video of two held-out puppets, and their ground-truth keypoints.

python -m puppet.make_assets [--folder assets]
"""

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from musepose.cli.entry import run_script
from musepose.media.video_writer import VideoWriter
from musepose.pose.keypoint_file import KeypointFile, Keypoints, Source, save_keypoints
from musepose.utils.files import complete_file
from puppet.world import (
    EXAMPLES,
    Actor,
    Person,
    dance_stances,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    neutral_stance,
    paint_backdrop,
    render,
)

WIDTH, HEIGHT, RATE, SECONDS = 576, 576, 30, 4  # square, like the training data of the puppets' models
SAMPLE_RATE = 44100
MARGIN = 0.06  # around the dancer
REFERENCE, REFERENCE_SCENE = EXAMPLES + 10, EXAMPLES + 9
DANCER, DANCE, DANCE_SCENE = EXAMPLES + 28, EXAMPLES + 1, EXAMPLES + 7


def reference_picture() -> tuple[np.ndarray, Person]:
    """→ the reference image, a standing character, (576, 576, 3) uint8, and its annotations."""
    character, stance = make_character(REFERENCE), neutral_stance()
    placement = fit(character, [stance], WIDTH, HEIGHT, margin=0.2)  # room for raised arms
    picture = render([Actor(character, stance, placement)], WIDTH, HEIGHT, make_backdrop(REFERENCE_SCENE))
    return picture.image, picture.people[0]


def _tone(frequency: float, seconds: float, decay: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.sin(2 * np.pi * frequency * t) * np.exp(-t / decay) * np.minimum(t / 0.004, 1)


def _drum() -> np.ndarray:
    """A bass drum: a sine with a frequency that falls from 150 to 48 Hz."""
    t = np.arange(round(0.28 * SAMPLE_RATE)) / SAMPLE_RATE
    return np.sin(2 * np.pi * (48 * t + 102 * 0.035 * (1 - np.exp(-t / 0.035)))) * np.exp(-t / 0.09)


def _hiss(rng: np.random.Generator, seconds: float, decay: float) -> np.ndarray:
    """A cymbal or snare: high-pass noise."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.diff(rng.normal(0, 0.5, len(t) + 1)) * np.exp(-t / decay)


def beat(tempo: float, seconds: float) -> np.ndarray:
    """Drums, bass and chords at `tempo` beats per minute; mono, (samples,) float in -1..1."""
    rng = np.random.default_rng(0)
    track = np.zeros(round(seconds * SAMPLE_RATE))

    def play(sound: np.ndarray, at_beat: float, volume: float) -> None:
        start = round(at_beat * 60 / tempo * SAMPLE_RATE)
        sound = sound[: max(0, len(track) - start)]
        track[start : start + len(sound)] += volume * sound

    bass = (55.0, 55.0, 65.41, 49.0)  # A A C G
    chords = ((220.0, 261.63, 329.63), (220.0, 261.63, 329.63), (261.63, 329.63, 392.0), (196.0, 246.94, 293.66))
    for k in range(int(seconds * tempo / 60) + 1):
        play(_drum(), k, 0.75)
        play(_hiss(rng, 0.05, 0.012), k + 0.5, 0.30)
        if k % 2:
            play(_hiss(rng, 0.16, 0.05), k, 0.32)
        play(_tone(bass[k // 2 % 4], 0.3, 0.16), k + 0.5, 0.45)
        for note in chords[k // 2 % 4]:
            play(_tone(note, 0.5, 0.22), k + 0.5, 0.13)
    return np.tanh(track) * np.minimum((seconds - np.arange(len(track)) / SAMPLE_RATE) / 0.15, 1)


def _write_sound(path: Path, samples: np.ndarray) -> None:
    """Write uncompressed audio as Matroska."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        block = np.rint(samples * 30000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_dance(path: Path) -> list[Person]:
    """Write the dance video: another character, with music at the dance's tempo. → annotations of each frame."""
    character, dance = make_character(DANCER), make_dance(DANCE)
    stances = dance_stances(dance, RATE * SECONDS, RATE)
    placement = fit(character, stances, WIDTH, HEIGHT, margin=MARGIN)
    stage = paint_backdrop(make_backdrop(DANCE_SCENE), WIDTH, HEIGHT)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "beat.mkv"
        _write_sound(sound, beat(dance.tempo, SECONDS))
        with VideoWriter(path, WIDTH, HEIGHT, RATE, audio_from=sound, crf=21) as video:
            people = []
            for stance in stances:
                picture = render([Actor(character, stance, placement)], WIDTH, HEIGHT, stage)
                video.write(picture.image)
                people.append(picture.people[0])
    return people


def _keypoints(people: list[Person]) -> Keypoints:
    """Ground-truth keypoints in the detector's format: score 1 for visible points, 0 for the others."""
    points = np.stack([person.keypoints for person in people])
    return Keypoints(points.astype(np.float32), np.stack([person.visible for person in people]).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("assets"), help="where images/, videos/, keypoints/ lie")
    folder = parser.parse_args().folder
    reference, dance = folder / "images" / "ref.png", folder / "videos" / "dance.mp4"
    keypoints = folder / "keypoints" / "img_ref_video_dance.npz"
    image, person = reference_picture()
    with complete_file(reference) as partial:
        Image.fromarray(image).save(partial, format="PNG", optimize=True)
    people = write_dance(dance)
    content = KeypointFile(
        *(Source.of(reference), _keypoints([person])),
        *(Source.of(dance), _keypoints(people)),
        detect_resolution=512,  # the default of pose_align.py, so that the file works without this flag
    )
    save_keypoints(keypoints, content)
    for path in (reference, dance, keypoints):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_script(main)
