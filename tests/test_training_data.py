"""Training data: the frames of a sample, the order of samples, frames from videos and from the cache."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from media import write_video
from tiny_training import CLIPS, FRAMES, SIZE, make_trainer, write_workplace
from tolerance import network_rounding, rounding, unit
from torch.utils.data import DataLoader

from musepose.media.video_reader import read_frames
from musepose.training.data.dataset import (
    ClipChooser,
    ClipDataset,
    PairChooser,
    StepSampler,
    read_frames_in_order,
    resize_lanczos,
    to_tensor,
)
from musepose.training.data.manifest import Clip
from musepose.utils.errors import UserError


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workplace(tmp_path_factory.mktemp("training"))


def clip(frames: int, rate: Fraction | int = 30) -> Clip:
    return Clip(Path("a.mp4"), Path("b.mp4"), None, frames, Fraction(rate), 64, 64)


def choices(chooser, of: Clip, times: int = 300) -> list:
    rng = np.random.default_rng(0)
    return [chooser(of, rng) for _ in range(times)]


def test_targets_keep_the_margin_and_reach_everywhere() -> None:
    chosen = choices(PairChooser(30, 1), clip(100))
    distances = [abs(c.reference - c.targets[0]) for c in chosen]
    assert min(distances) == 30 and max(distances) > 80
    assert {c.targets[0] for c in chosen} >= {0, 99} and {c.reference for c in chosen} >= {0, 99}


def test_a_clip_too_short_for_the_margin_gives_its_farthest_frames() -> None:
    assert {(c.reference, c.targets[0]) for c in choices(PairChooser(30, 1), clip(3))} == {
        *((0, 2), (2, 0)),
        *((1, 0), (1, 2)),
    }
    assert {(c.reference, c.targets[0]) for c in choices(PairChooser(30, 1), clip(1), 5)} == {(0, 0)}


def test_several_targets_differ_where_the_clip_has_enough() -> None:
    assert all(len({*c.targets, c.reference}) == 4 for c in choices(PairChooser(1, 3), clip(4)))
    assert all(len(c.targets) == 3 for c in choices(PairChooser(1, 3), clip(2)))


@pytest.mark.parametrize(("rate", "step"), [(Fraction(30000, 1001), 2), (30, 2), (Fraction(31), 4), (60, 4)])
def test_the_sample_rate_is_doubled_above_30_frames_a_second(rate, step: int) -> None:
    chosen = choices(ClipChooser(8, 2), clip(60, rate))
    assert all(set(np.diff(c.targets)) == {step} for c in chosen)
    assert {c.targets[0] for c in chosen} >= {0} and max(c.targets[-1] for c in chosen) == 59


def test_short_clips_are_taken_at_the_largest_step_they_allow() -> None:
    assert {c.targets for c in choices(ClipChooser(8, 4), clip(15))} == {tuple(range(0, 15, 2))}
    assert {c.targets for c in choices(ClipChooser(8, 4), clip(8))} == {tuple(range(8))}


def test_a_clip_s_reference_is_any_of_its_frames() -> None:
    assert {c.reference for c in choices(ClipChooser(2, 1), clip(10))} == set(range(10))


def test_every_clip_comes_once_a_round_and_a_sample_is_the_same_whenever_asked_for() -> None:
    clips = [clip(50) for _ in range(7)]
    seen = []

    def source(index, frames):
        seen.append((index, tuple(frames)))
        return {"pixels": torch.zeros(len(frames), 1), "poses": torch.zeros(len(frames), 1)}

    samples = ClipDataset(clips, PairChooser(10, 1), source, seed=4)
    seeds = [samples[i]["seed"] for i in range(21)]
    rounds = [[index for index, _ in seen[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(r) == list(range(7)) for r in rounds) and len({tuple(r) for r in rounds}) == 3
    assert len(set(seeds)) == 21
    before = list(seen)
    assert samples[13]["seed"] == seeds[13] and seen[-1] == before[13]
    assert ClipDataset(clips, PairChooser(10, 1), source, seed=5)[13]["seed"] != seeds[13]


@pytest.mark.parametrize(("batch", "ranks"), [(4, 1), (2, 2), (1, 4)])
def test_a_step_has_the_same_samples_however_they_are_shared_out(batch: int, ranks: int) -> None:
    samplers = [StepSampler(3, 6, batch, rank, ranks) for rank in range(ranks)]
    assert all(len(list(s)) == len(s) for s in samplers)
    steps = [sorted(n for s in samplers for n in list(s)[i * batch : (i + 1) * batch]) for i in range(3)]
    assert steps == [list(range(4 * step, 4 * step + 4)) for step in range(3, 6)]


def test_frames_come_in_the_order_asked_for(workplace: Path) -> None:
    every = list(read_frames(workplace / "video-0.mp4"))
    for frame, number in zip(read_frames_in_order(workplace / "video-0.mp4", [5, 0, 5]), (5, 0, 5), strict=True):
        np.testing.assert_array_equal(frame, every[number])
    with pytest.raises(UserError, match="has no frame 8"):
        read_frames_in_order(workplace / "video-0.mp4", [0, 8])


def one_batch(training) -> tuple[dict, dict]:
    samples = next(iter(DataLoader(training.samples, 4, sampler=range(4))))
    return samples, training.encoder.batch(samples, torch.device("cpu"))


def test_batches_hold_the_frames_that_were_chosen(workplace: Path) -> None:
    training = make_trainer(workplace, 1, "data.targets_per_reference=2")
    samples, batch = one_batch(training)
    rng = np.random.default_rng([training.config.seed, 1, 0])
    index = int(np.random.default_rng([training.config.seed, 0]).permutation(CLIPS)[0])
    choice = training.samples.choose(training.samples.clips[index], rng)
    frames = list(read_frames(workplace / f"video-{index}.mp4"))
    poses = list(read_frames(workplace / f"pose-{index}.mp4"))
    pictures = [frames[i] for i in (choice.reference, *choice.targets)]
    latents, token = training.encoder.encode_pictures(pictures)
    for name, found, expected in (
        ("vae", torch.cat([batch["reference"][:1], batch["latents"][0]]), latents),
        ("image_encoder", batch["token"][:1], token[:1]),
    ):

        def encoded(kind: int = ("vae", "image_encoder").index(name)) -> torch.Tensor:
            return training.encoder.encode_pictures(pictures)[kind]

        bound = network_rounding(encoded, getattr(training.encoder, name))
        torch.testing.assert_close(found, expected.view_as(found), rtol=0, atol=bound)
    wanted = to_tensor([resize_lanczos(poses[t], SIZE, SIZE) for t in choice.targets])
    assert torch.equal(batch["poses"][0], wanted.float() / 255)


def test_the_cache_gives_the_same_batch(workplace: Path, tmp_path: Path) -> None:
    _, plain = one_batch(make_trainer(workplace, 1))
    _, cached = one_batch(make_trainer(workplace, 1, f"data.cache_latents={tmp_path}"))
    assert plain.keys() == cached.keys()
    assert torch.equal(plain["poses"], cached["poses"])
    for name in ("reference", "latents", "token"):  # one rounding to half precision, and float32's by the encoders
        bounds = dict(rtol=unit(torch.float16), atol=rounding(100, plain[name].abs().max().item()))
        torch.testing.assert_close(cached[name], plain[name], **bounds)
        assert not torch.allclose(plain[name].bfloat16().float(), plain[name], **bounds)


def test_only_changed_clips_are_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from musepose.training.data.encoding import Encoder

    workplace = write_workplace(tmp_path)
    encoded = []
    encode = Encoder.encode_pictures
    monkeypatch.setattr(Encoder, "encode_pictures", lambda self, p: encoded.append(len(p)) or encode(self, p))
    cache = f"data.cache_latents={tmp_path / 'cache'}"
    _, first = one_batch(make_trainer(workplace, 1, cache))
    assert encoded == [FRAMES] * CLIPS
    make_trainer(workplace, 1, cache)
    assert len(encoded) == CLIPS
    write_video(workplace / "video-1.mp4", [np.full((SIZE, SIZE, 3), 90, np.uint8)] * FRAMES, rate=15)
    os.utime(workplace / "video-1.mp4", (1, 1))
    _, second = one_batch(make_trainer(workplace, 1, cache))
    assert len(encoded) == CLIPS + 1
    changed = [not torch.equal(a, b) for a, b in zip(first["reference"], second["reference"], strict=True)]
    assert any(changed) and not all(changed)
    make_trainer(workplace, 1, cache, "data.train_width=128")
    assert len(encoded) == 2 * CLIPS + 1


def write_spoilt(path: Path, kind: str) -> None:
    whole = np.load(path)
    path.unlink()
    if kind == "truncated":
        np.save(path, whole)
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "garbage":
        path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((")
    elif kind == "archive":
        np.savez(path.open("wb"), a=whole)
    elif kind != "missing":
        others = {"short": whole[:-1], "objects": np.array([{}]), "wide": whole.astype(float), "flat": whole.ravel()}
        np.save(path, others[kind], allow_pickle=True)


@pytest.mark.parametrize("name", ["latents", "token", "poses"])
def test_spoilt_files_of_the_cache_are_made_anew(workplace: Path, tmp_path: Path, name: str) -> None:
    training = make_trainer(workplace, 1, f"data.cache_latents={tmp_path}/cache")
    cache = training.samples.source
    path, whole = cache.path(1, name), cache.path(1, name).read_bytes()
    encoded = []

    def encode(pictures):
        encoded.append(len(pictures))
        return training.encoder.encode_pictures(pictures)

    kinds = ("truncated", "pipe", "garbage", "archive", "missing", "short", "objects", "wide", "flat")
    for kind in kinds:
        write_spoilt(path, kind)
        cache.fill(training.accelerator, encode)
        assert path.read_bytes() == whole, kind
    assert encoded == [FRAMES] * len(kinds)


def test_numbers_that_are_not_finite_do_not_leave_the_cache(workplace: Path, tmp_path: Path) -> None:
    cache = make_trainer(workplace, 1, f"data.cache_latents={tmp_path}/cache").samples.source
    path = cache.path(0, "latents")
    array = np.load(path)
    array[3, 0, 0, 0] = np.nan
    np.save(path, array)
    assert cache(0, [0, 2])["latents"].isfinite().all()
    with pytest.raises(UserError, match="latents.npy is spoilt, .* not finite: delete it"):
        cache(0, [0, 3])
    path.unlink()
    with pytest.raises(UserError, match="latents.npy was changed during the training"):
        cache(0, [0])


def test_encoders_that_give_no_numbers_write_no_cache(workplace: Path, tmp_path: Path) -> None:
    training = make_trainer(workplace, 1, f"data.cache_latents={tmp_path}/cache")
    cache = training.samples.source
    before = cache.path(0, "latents").read_bytes()
    cache.path(0, "token").unlink()
    with pytest.raises(UserError, match="video-0.mp4 is not finite"):
        cache.fill(training.accelerator, lambda p: (torch.full((len(p), 4, 8, 8), np.inf), torch.zeros(len(p), 1, 8)))
    assert cache.path(0, "latents").read_bytes() == before and not cache.path(0, "token").exists()


def test_latents_of_another_precision_are_encoded_again(workplace: Path, tmp_path: Path) -> None:
    cache = f"data.cache_latents={tmp_path}"
    precisions = ((), ("solver.mixed_precision=bf16",))
    trainings = [make_trainer(workplace, 1, cache, *precision) for precision in precisions]
    (full, half), paths = zip(*((one_batch(t)[1], t.samples.source.path(0, "latents")) for t in trainings), strict=True)
    assert paths[0] != paths[1] and not torch.equal(full["latents"], half["latents"])


def test_processes_share_the_encoding_without_gaps(workplace: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from musepose.training.data.cache import FrameCache

    training = make_trainer(workplace, 1, f"data.cache_latents={tmp_path}/unused")
    config = training.config
    config.data.cache_latents = str(tmp_path / "cache")
    cache = FrameCache(training.samples.clips, config, "x")
    # The second process gets to work when the first one has finished its share, but both have listed what to do.
    barriers = []

    def second() -> None:
        barriers.append("second")

    def first() -> None:
        if not barriers:
            barriers.append("first")
            other = SimpleNamespace(process_index=1, num_processes=2, is_main_process=False, wait_for_everyone=second)
            cache.fill(other, training.encoder.encode_pictures)

    main = SimpleNamespace(process_index=0, num_processes=2, is_main_process=False, wait_for_everyone=first)
    cache.fill(main, training.encoder.encode_pictures)
    assert all(cache.path(i, "poses").is_file() for i in range(CLIPS))


def test_the_cache_refuses_a_video_shorter_than_stated(workplace: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from musepose.training.data.manifest import load_manifest, save_manifest

    clips = load_manifest([workplace / "meta.json"])
    save_manifest(tmp_path / "meta.json", [replace(clips[0], frames=9)])
    with pytest.raises(UserError, match=r"video-0.mp4.* have 8 and 8 frames, the manifest says 9"):
        make_trainer(workplace, 1, f"data.cache_latents={tmp_path}/c", f"data.meta_paths=[{tmp_path}/meta.json]")
