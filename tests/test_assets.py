"""The example files in assets/ are those that puppet.make_assets writes, and belong together."""

from pathlib import Path

import numpy as np
from PIL import Image
from tolerance import assert_near, rounding

from musepose.media.video_reader import probe, read_frames
from musepose.pose.keypoint_file import Source, load_keypoints
from puppet import make_assets
from puppet.world import (
    EXAMPLES,
    HELD_OUT,
    Actor,
    dance_stances,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    render,
)

ASSETS = Path(__file__).parent.parent / "assets"


def test_the_examples_use_held_out_seeds():
    seeds = (make_assets.REFERENCE, make_assets.DANCER, make_assets.DANCE)
    assert min(seeds) >= EXAMPLES > HELD_OUT and make_assets.REFERENCE != make_assets.DANCER


def test_the_reference_picture_is_what_the_program_draws():
    path = ASSETS / "images" / "ref.png"
    stored = np.asarray(Image.open(path)).astype(int)
    drawn, _ = make_assets.reference_picture()
    assert np.abs(stored - drawn).mean() < 0.5  # anti-aliasing differs between OpenCV releases
    assert path.stat().st_size < 500_000


def test_the_dance_video_is_what_the_program_draws():
    path = ASSETS / "videos" / "dance.mp4"
    info = probe(path)
    assert (info.width, info.height, info.frames, info.rate, info.has_audio) == (576, 576, 120, 30, True)
    assert path.stat().st_size < 1_500_000
    character = make_character(make_assets.DANCER)
    stances = dance_stances(make_dance(make_assets.DANCE), 120)
    stage = make_backdrop(make_assets.DANCE_SCENE)
    placement = fit(character, stances, 576, 576, margin=make_assets.MARGIN)
    drawn = render([Actor(character, stances[0], placement)], 576, 576, stage).image
    shown = next(iter(read_frames(path, count=1)))
    assert np.abs(shown.astype(int) - drawn).mean() < 3.0  # H.264; another frame or scene is off by over 10


def test_the_keypoint_file_belongs_to_the_examples():
    reference, dance = ASSETS / "images" / "ref.png", ASSETS / "videos" / "dance.mp4"
    content = load_keypoints(ASSETS / "keypoints" / "img_ref_video_dance.npz")
    assert (content.image, content.video) == (Source.of(reference), Source.of(dance))
    assert len(content.video_keypoints.points) == probe(dance).frames
    _, person = make_assets.reference_picture()
    assert_near(content.image_keypoints.points[0], person.keypoints, rounding(1))  # stored as float32
    assert np.array_equal(content.image_keypoints.scores[0] > 0.5, person.visible)


def test_the_two_examples_differ_in_their_proportions():
    one, other = (make_character(seed).body for seed in (make_assets.REFERENCE, make_assets.DANCER))
    ratios = [getattr(one, name) / getattr(other, name) for name in ("upper_arm", "forearm", "thigh", "shin", "torso")]
    relative = np.array(ratios) / (one.head / other.head)
    assert np.abs(relative - 1).max() > 0.1


def test_the_music_lasts_as_long_as_the_dance_and_is_audible():
    sound = make_assets.beat(118.3, 2.0)
    assert sound.shape == (2 * make_assets.SAMPLE_RATE,) and np.abs(sound).max() <= 1
    assert np.sqrt((sound**2).mean()) > 0.05 and np.abs(sound[-10:]).max() < 0.01
