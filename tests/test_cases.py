"""Flags and YAML → jobs: accepted and refused values, error messages, frame counts and rates."""

import shutil
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import truncate, write_empty, write_picture, write_text, write_video, write_video_without_frames

from musepose.inference.cases import make_job, make_plan
from musepose.inference.options import Settings, merge_settings
from musepose.media.video_reader import VideoInfo
from musepose.utils.errors import UserError
from musepose.utils.options import option_specs

NOW = datetime(2024, 5, 6, 7, 8, 9)
DEFAULTS = merge_settings({}, {}, Path("config.yaml"))


def plan(stage_2, flags=None, **changes):
    return make_plan(stage_2.write_config(**changes), flags or {}, NOW)


def with_settings(**values) -> Settings:
    return Settings(**{**vars(DEFAULTS), **values})


def info(frames=100, rate=30, has_audio=True) -> VideoInfo:
    return VideoInfo(Path("dance.mp4"), 64, 48, frames, Fraction(rate), has_audio)


def job(pose=None, **settings):
    return make_job(Path("ref.png"), pose or info(), with_settings(**settings), Path("out"))


def test_defaults_are_the_published_ones():
    expected = {"width": 768, "height": 768, "length": 300, "context_frames": 48, "context_overlap": 4}
    expected |= {
        "cfg": 3.5,
        "seed": 99,
        "steps": 20,
        "scheduler": "ddim",
        "shared_noise": 0.0,
        "fps": None,
        "skip": 1,
        "device": None,
        "dtype": "float16",
        "vram": "auto",
        "tail": "pad",
        "compile": False,
        "split": None,
        "size": None,
        "spacing": 1.0,
        "noise": "independent",
        "smooth_latents": 0.0,
        "preset": None,
        "guidance_start": 0.0,
        "guidance_stop": 1.0,
        "guidance_every": 1,
        "cache_interval": 1,
        "cache_branch": 0,
        "blend": "flat",
        "shift": 0,
    }
    assert vars(DEFAULTS) == {**expected, "output": None, "overwrite": False, "no_audio": False}


def test_flag_wins_over_yaml_and_yaml_over_default(stage_2):
    made = plan(stage_2, {"steps": "7"}, steps=5, skip=3, weight_dtype="fp32").settings
    assert (made.steps, made.skip, made.dtype, made.seed) == (7, 3, "float32", 99)


@pytest.mark.parametrize(("given", "wanted"), [("low", "low"), ("12", 12.0), (7.5, 7.5)])
def test_memory_is_a_word_or_a_number(stage_2, given, wanted):
    assert plan(stage_2, {"vram": given}).settings.vram == wanted
    assert plan(stage_2, vram=given).settings.vram == wanted


@pytest.mark.parametrize(
    ("settings", "longest"),
    [({}, (48, 48)), ({"tail": "flush"}, (5, 5)), ({"context_frames": 3, "context_overlap": 1}, (3, 5))],
)
def test_longest_work_of_a_plan(stage_2, settings, longest):
    write_video(stage_2.path / "short.mp4", 4)
    made = plan(stage_2, test_cases={"ref.png": ["short.mp4", "dance.mp4"]}, **settings)
    assert [job.frames for job in made.jobs] == [2, 5]
    assert made.longest == longest


def test_published_folder_and_file_names(stage_2):
    only = plan(stage_2, pose_guider_path="weights/pose_guider_path").jobs[0]
    folder = Path("output/video-20240506/070809-3.5-pose_guider_path-motion_module_path")
    assert only.result == folder / "ref_dance_3.5_20_1.mp4"
    assert only.comparison == folder / "ref_dance_3.5_20_1_cmp.mp4"


def test_planning_creates_nothing(stage_2):
    plan(stage_2, {"output": "results/of/today"})
    assert not Path("output").exists()
    assert not Path("results").exists()


def test_folders_unfold_in_sorted_order(stage_2):
    for name in ("people/b.png", "people/a.jpg", "people/notes.txt", "dances/2.mov", "dances/1.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy("dance.mp4" if "dances" in name else "ref.png", name)
    jobs = plan(stage_2, test_cases={"people": ["dances", "dance.mp4"]}).jobs
    assert [one.title for one in jobs] == [
        f"{image} + {pose}" for image in ("a.jpg", "b.png") for pose in ("1.mp4", "2.mov", "dance.mp4")
    ]


@settings(deadline=None)  # deadlines fail on a busy machine
@given(frames=st.integers(1, 3000), length=st.integers(1, 3000), skip=st.integers(0, 40))
def test_frames_and_rate(frames, length, skip):
    made = job(info(frames, Fraction(30000, 1001)), length=length, skip=skip)
    assert made.rate * (skip + 1) == Fraction(30000, 1001)
    assert made.frames == max(1, min(frames, length) // (skip + 1))
    assert (made.frames - 1) * (skip + 1) < min(frames, length)  # the last one taken lies within the video and -L


@pytest.mark.parametrize(
    "fps, rate, audio",
    [(None, 15, True), ("30", 30, False), ("15", 15, True), ("15000/1001", Fraction(15000, 1001), True)],
)
def test_fps_sets_the_rate_and_sound_goes_only_where_in_step(fps, rate, audio):
    made = job(fps=Fraction(fps) if fps else None)
    assert (made.rate, made.audio) == (rate, Path("dance.mp4") if audio else None)


def test_no_audio():
    assert job(no_audio=True).audio is None
    assert job(info(has_audio=False)).audio is None


BAD_SETTINGS = [
    ("width", "500", "--width is 500, not a multiple of 8: take 496 or 504"),
    ("width", "0", "--width is 0: give 8 to 8192"),
    ("height", "-8", "--height is -8: give 8 to 8192"),
    ("height", "a lot", "--height is 'a lot': give a whole number"),
    ("length", "0", "--length is 0: give at least 1"),
    ("context_frames", "129", "--context_frames is 129: give 1 to 128"),
    ("context_overlap", "48", "--context_overlap (-O) 48 is not below --context_frames (-S) 48"),
    ("context_overlap", "-1", "--context_overlap is -1: give at least 0"),
    ("cfg", "nan", "--cfg is 'nan': give a number"),
    ("cfg", "-1", "--cfg is -1: give 0 to 1000"),
    ("cfg", "1e308", "--cfg is 1e308: give 0 to 1000"),
    ("shared_noise", "1.5", "--shared_noise is 1.5: give 0 to 1"),
    ("shared_noise", "-0.1", "--shared_noise is -0.1: give 0 to 1"),
    ("seed", "1.5", "--seed is '1.5': give a whole number"),
    ("seed", str(2**63), "give -9223372036854775808 to 9223372036854775807"),
    ("steps", "0", "--steps is 0: give 1 to 1000"),
    ("steps", "1001", "--steps is 1001: give 1 to 1000"),
    ("fps", "0", "--fps is 0: give 1/1000 to 1000"),
    ("fps", "1/0", "--fps is '1/0': give a number or a fraction"),
    ("fps", "1e-300", "--fps is 1e-300: give 1/1000 to 1000"),
    ("skip", "-1", "--skip is -1: give 0 to 999"),
    ("skip", "1000", "--skip is 1000: give 0 to 999"),
    ("dtype", "int8", "--dtype is int8: choose from auto, fp16, fp32, bf16"),
    ("output", "", "--output is '': give a path"),
    ("scheduler", "lcm", "--scheduler is lcm: choose from ddim, dpm++, unipc, euler"),
    ("vram", "lots", "--vram is 'lots': give auto, high, sequential, medium, low, least, a number"),
    ("vram", "0.5", "--vram is 0.5: give at least 1"),
    ("tail", "cut", "--tail is cut: choose from pad, flush"),
    ("split", "halves", "--split is halves: choose from cases, frames"),
]


@pytest.mark.parametrize("name, value, message", BAD_SETTINGS)
def test_bad_flag(name, value, message):
    with pytest.raises(UserError) as caught:
        merge_settings({name: value}, {}, Path("config.yaml"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("width", 500, "width is 500, not a multiple of 8"),
        ("width", True, "width is True: give a whole number"),
        ("steps", 2.5, "steps is 2.5: give a whole number"),
        ("steps", [20], "steps is [20]: give a whole number"),
        ("cfg", "high", "cfg is 'high': give a number"),
        ("no_audio", "yes, please", "no_audio is 'yes, please': give true or false"),
        ("weight_dtype", 16, "weight_dtype is 16: choose from auto"),
        ("denoising_unet_path", 3, "denoising_unet_path is 3: give a path"),
        ("denoising_unet_path", None, "the key denoising_unet_path is missing"),
        ("test_cases", None, "the key test_cases is missing"),
        ("test_cases", {}, "test_cases is empty"),
        ("test_cases", ["ref.png"], "test_cases is ['ref.png'], not pictures with their pose videos"),
        ("test_cases", {"ref.png": "dance.mp4"}, "not a list of pose videos"),
        ("test_cases", {"ref.png": []}, "not a list of pose videos"),
        ("test_cases", {"ref.png": [7]}, "not a list of pose videos"),
        ("stepps", 3, "unknown key stepps: is it steps?"),
        ("zzz", 3, "unknown key zzz: remove it"),
    ],
)
def test_bad_yaml_value(stage_2, key, value, message):
    with pytest.raises(UserError) as caught:
        plan(stage_2, **{key: value})
    assert "config.yaml" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"a: b: c\n", b"\xff\xfe\x00", b"a: 1\na: 2\n", b"a: ${b}\n"])
def test_bad_yaml_file(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="config.yaml"):
        make_plan(path, {}, NOW)


def test_yaml_whose_aliases_multiply_is_refused(tmp_path):
    """Ten aliases in each of six lists are a million values; a list more, ten million."""
    lists = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 7))]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(lists))
    with pytest.raises(UserError, match="config.yaml cannot be read as YAML .*10,000 values"):
        make_plan(path, {}, NOW)


def test_picture_without_quotes_that_is_a_number(stage_2):
    config = stage_2.write_config()
    config.write_text(config.read_text().replace('"ref.png"', "7"))
    with pytest.raises(UserError, match="picture 7, which is not a path: put it in quotes"):
        make_plan(config, {}, NOW)


def test_a_config_that_is_no_file_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match="is a folder: give a config with --config"):
        make_plan(tmp_path, {}, NOW)
    with pytest.raises(UserError, match="/dev/null is not a file: give a config with --config"):
        make_plan(Path("/dev/null"), {}, NOW)


def test_missing_yaml():
    with pytest.raises(UserError, match="nowhere.yaml is missing"):
        make_plan(Path("nowhere.yaml"), {}, NOW)


BREAKERS = {
    "missing": lambda path: path.unlink(),
    "empty": write_empty,
    "truncated": truncate,
    "text": write_text,
}


@pytest.mark.parametrize("file", ["ref.png", "dance.mp4"])
@pytest.mark.parametrize("kind", BREAKERS)
def test_bad_media(stage_2, file, kind):
    BREAKERS[kind](Path(file))
    with pytest.raises(UserError, match=file):
        plan(stage_2)


def test_video_without_frames(stage_2):
    write_video_without_frames(stage_2.pose)
    with pytest.raises(UserError, match="dance.mp4 .*frames"):
        plan(stage_2)


@pytest.mark.parametrize(
    "cases",
    [
        {"ref.png": ["dance.mp4", "dance.mp4"]},
        {"ref.png": ["dance.mp4"], "more/ref.png": ["dance.mp4"]},
        {"ref.png": ["dance.mp4"], "ref.bmp": ["dance.mp4"]},
        {"ref.png": ["b_dance.mp4"], "ref_b.png": ["dance.mp4"]},
    ],
)
def test_two_cases_of_one_file_name(stage_2, cases):
    Path("more").mkdir()
    for name in ("more/ref.png", "ref.bmp", "ref_b.png"):
        write_picture(Path(name), "rgb")
    write_video(Path("b_dance.mp4"), 2)
    with pytest.raises(UserError, match=r"would both write output.*mp4: rename one"):
        plan(stage_2, test_cases=cases)


@pytest.mark.parametrize("folder", ["ref.png", "ref.png/below", "/proc/results"])
def test_output_that_cannot_be_written(stage_2, folder):
    with pytest.raises(UserError, match=f"cannot write {folder}/ref_dance.*choose another output path"):
        plan(stage_2, {"output": folder})


def test_names_too_long_for_a_file_are_refused_up_front(stage_2):
    """The comparison's name is the longest: here it has 256 bytes, the result's 252."""
    name = "r" * (252 - len("_dance_3.5_20_1.mp4")) + ".png"
    write_picture(Path(name), "rgb")
    with pytest.raises(UserError, match="cannot write results/rrr.*_cmp.mp4 .*name.*: "):
        plan(stage_2, {"output": "results"}, test_cases={name: ["dance.mp4"]})
    with pytest.raises(UserError, match="xxx cannot be read"):
        plan(stage_2, test_cases={"x" * 300: ["dance.mp4"]})


@pytest.mark.parametrize("key, file", [("pretrained_vae_path", "config.json"), ("motion_module_path", "")])
@pytest.mark.parametrize("breaker, word", [("missing", "missing"), ("empty", "empty")])
def test_missing_and_empty_weights(stage_2, key, file, breaker, word):
    BREAKERS[breaker](Path(stage_2.config[key]) / file)
    with pytest.raises(UserError, match=f"{key}.* is {word}: .*(check the path|get it again)"):
        plan(stage_2)


def test_every_setting_can_stand_in_the_yaml(stage_2):
    values = {"width": 64, "height": 72, "length": 9, "context_frames": 8, "context_overlap": 2, "cfg": 2.5, "seed": 5}
    values |= {"steps": 3, "fps": "30000/1001", "skip": 0, "device": "cpu", "output": "results", "shared_noise": 0.5}
    values |= {"overwrite": True, "no_audio": True, "vram": "low", "tail": "flush", "compile": True, "split": "cases"}
    values |= {
        "scheduler": "euler",
        "noise": "shuffled",
        "smooth_latents": 0.1,
        "spacing": 1.5,
        "size": 96,
        "preset": "fast",
        "guidance_start": 0.25,
        "guidance_stop": 0.75,
    }
    values |= {"guidance_every": 3, "cache_interval": 2, "cache_branch": 1, "blend": "triangle", "shift": 5}
    assert values.keys() | {"dtype"} == {setting.name for setting in option_specs(Settings)}
    made = vars(plan(stage_2, weight_dtype="bf16", **values).settings)
    assert made == {**values, "fps": Fraction(30000, 1001), "dtype": "bfloat16", "output": Path("results")}
