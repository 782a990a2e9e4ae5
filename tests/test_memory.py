"""Memory plans: equal results, estimated memory, the choice of a plan, and recovery from out of memory."""

from functools import cache
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch
from test_golden_pipeline import CASES, FINAL, SCHEDULER, error, golden_arguments, load, pipeline, sampling
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.models import full_size_pipeline
from musepose.inference import memory_estimate
from musepose.inference.memory_estimate import Workload, choose_plan, meta_pipeline, peak_bytes
from musepose.memory.live_memory import LiveMemory, MetaDeviceMode
from musepose.memory.offload import ModelOffloader
from musepose.memory.plan import BY_NAME, GIB, HIGH, LOW, PLANS, RESERVE, free_memory
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.schedulers import make_scheduler
from musepose.utils.errors import UserError, is_out_of_memory
from random_models.tiny_weights import MOTION_CONFIG, tiny_models, write_published_layout

peak_bytes = cache(peak_bytes)  # a dry run takes seconds, and several tests ask for the same one
CPU, GPU = torch.device("cpu"), torch.device("cuda")
LENGTH_48 = dict(window=48, video_length=48, guided=True)


def own_pipeline(plan=HIGH) -> Pose2VideoPipeline:
    made = Pose2VideoPipeline(**tiny_models(), scheduler=pipeline().scheduler)
    made.offloader.plan = plan.for_device(CPU)
    return made


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    monkeypatch.setattr(memory_estimate, "peak_bytes", peak_bytes)


@cache
def full_size() -> Pose2VideoPipeline:
    """Full-size models in float16 on the meta device."""
    return full_size_pipeline(torch.float16, "meta")


@cache
def shallow() -> Pose2VideoPipeline:
    """The golden data's models but for UNets of two levels, in float16 on the meta device: a dry run is shorter."""
    sizes = {"block_out_channels": (32, 32), "cross_attention_dim": 32, "layers_per_block": 1}
    sizes |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    sizes |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    with torch.device("meta"):
        unets = {"reference_unet": UNet(**sizes, has_output=False)}
        unets |= {"denoising_unet": UNet(**sizes, motion_module=MOTION_CONFIG)}
    models = tiny_models("vae", "image_encoder", "pose_guider") | unets
    models = {name: nn.Module.to(model, "meta", torch.float16).eval() for name, model in models.items()}
    return Pose2VideoPipeline(**models, scheduler=pipeline().scheduler)


@CASES
@pytest.mark.parametrize("plan", PLANS[1:], ids=lambda plan: plan.name)
def test_every_plan_gives_the_golden_result(name, plan):
    _, expected, _, _ = load(name)
    arguments = golden_arguments(name)
    tokens = plan.chunks.tokens and 100  # small enough to divide these small pictures
    divided = plan.__class__(**{**vars(plan), "chunks": plan.chunks.__class__(tokens, plan.chunks.offload_skips)})
    latents = own_pipeline(divided)(**arguments).frames
    whole, bound = sampling(name)
    assert error(latents, expected["latents.final"]) < min(bound, FINAL)
    assert error(latents, whole) < bound


@pytest.mark.parametrize(
    ("plan", "side", "limit"),
    # The published system takes 16 GB at 512 and 28 GB at 768 pixels.
    [(HIGH, 512, 10.5), (HIGH, 768, 17.5), (LOW, 512, 4.4), (LOW, 768, 5.8)],
    ids=lambda value: getattr(value, "name", value),
)
def test_peak_of_a_full_size_sampling(plan, side, limit):
    """GiB in float16, models included; `low` must leave room for RESERVE within 6 and 8."""
    need = max(peak_bytes(full_size(), plan, Workload(side, side, **LENGTH_48)).values()) / GIB
    assert limit - 0.4 < need < limit
    if plan is LOW:
        assert need + RESERVE / GIB < {512: 6, 768: 8}[side]


def test_a_longer_video_takes_only_its_latents_and_predictions_more():
    """Three buffers: the latents and the predictions of both CFG branches."""
    short, long = (
        max(peak_bytes(full_size(), LOW, Workload(512, 512, 48, length, True)).values()) for length in (300, 3000)
    )
    assert long - short == 3 * 2700 * 4 * 64 * 64 * 2


def test_predictions_gathered_from_other_processes_are_counted():
    """A part of this process, 48 frames by both branches, and one of each process."""
    alone, shared = (
        peak_bytes(full_size(), LOW, Workload(512, 512, 48, 300, True, processes=count))["denoising"]
        for count in (1, 8)
    )
    assert shared - alone == 9 * 2 * 48 * 4 * 64 * 64 * 2


@torch.no_grad()
def test_counts_what_torch_s_own_tracker_counts():
    """One step on real tensors, compared with the peak of MemTracker from torch.distributed."""
    unet = tiny_models("denoising_unet")["denoising_unet"]
    tokens = torch.randn(2, 1, 32)
    context, sample = unet.prepare(tokens), torch.randn(2 * 3, 4, 16, 16)
    with LiveMemory([*unet.parameters(), *unet.buffers(), sample]) as ours:
        unet(sample, 500.0, context, frames=3)
    tracker = MemTracker()
    tracker.track_external(unet, sample)
    with tracker:
        unet(sample, 500.0, context, frames=3)
    theirs = sum(tracker.get_tracker_snapshot("peak")[CPU].values()) / 2  # it lists a total beside the parts
    assert ours.peak == theirs


@pytest.mark.parametrize(
    ("vram", "name"),
    [("high", "high"), ("low", "low"), (24.0, "high"), (10.0, "sequential"), (8.0, "medium"), (5.5, "low")],
)
def test_the_largest_plan_that_fits_is_chosen(vram, name):
    chosen, printed = choose_plan(full_size(), Workload(512, 512, **LENGTH_48), vram, GPU)
    assert chosen == BY_NAME[name]
    assert name in printed


@pytest.mark.parametrize("name", ["ddim", "dpm++", "unipc", "euler"])
def test_a_solver_s_history_is_counted(name):
    """Of a very long video, in latents: the video, two branches' predictions, the solver's history, a step's terms.

    Second-order solvers keep two results, UniPC the last sample too. A step has a few terms as large as the video, in
    float32 with all solvers but DDIM: what is beyond ten of float16's size would be copies that nobody needs.
    """
    made = Pose2VideoPipeline(**shallow().models(), scheduler=make_scheduler(SCHEDULER, name))
    short, long = (
        peak_bytes(made, LOW, Workload(512, 512, 48, length, True))["denoising"] for length in (20_000, 40_000)
    )
    latents = (long - short) / (20_000 * 4 * 64 * 64 * 2)
    held = {"ddim": 3, "euler": 3, "dpm++": 5, "unipc": 6}[name]
    assert held < latents <= held + 10


def test_auto_goes_by_what_is_free(monkeypatch):
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: 6 * GIB)
    chosen, printed = choose_plan(full_size(), Workload(512, 512, **LENGTH_48), "auto", GPU)
    assert chosen is LOW
    assert "of 6.0 GB free" in printed
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: 2 * GIB)
    chosen, printed = choose_plan(full_size(), Workload(512, 512, **LENGTH_48), "auto", GPU)
    assert chosen is PLANS[-1]
    assert "more than 2.0 GB free: trying" in printed


def test_a_number_too_small_for_any_plan():
    with pytest.raises(UserError, match=r"--vram 3: 512 x 512, 48 frames together takes about 4.0 GB: allow so much"):
        choose_plan(full_size(), Workload(512, 512, **LENGTH_48), 3.0, GPU)


def test_estimates_what_the_files_describe(tmp_path):
    paths: WeightPaths = write_published_layout(tmp_path)
    estimated = meta_pipeline(paths, torch.float32)
    assert {p.device.type for p in estimated.denoising_unet.parameters()} == {"meta"}
    chosen, _ = choose_plan(estimated, Workload(64, 64, 4, 4, True), "auto", CPU)
    assert chosen == HIGH.for_device(CPU)


def test_on_a_cpu_nothing_is_offloaded_or_grows_with_the_video():
    for plan in PLANS:
        here = plan.for_device(CPU)
        assert not (here.offload or here.chunks.offload_skips or here.keep_pose_features)


class Scarce(nn.Module):
    """A UNet that raises out of memory above a number of frames."""

    def __init__(self, unet: UNet, pictures: int):
        super().__init__()
        self.unet, self.pictures, self.sizes = unet, pictures, []

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.unet, name)

    def forward(self, sample, *arguments, **options):
        self.sizes.append(len(sample))
        if len(sample) > self.pictures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return self.unet(sample, *arguments, **options)


def test_out_of_memory_continues_with_a_smaller_plan_and_prints_it(capsys):
    case, expected, _, _ = load("pipeline_cfg")
    arguments = golden_arguments("pipeline_cfg")
    made = own_pipeline()
    made.denoising_unet = Scarce(made.denoising_unet, case["context_frames"])
    latents = made(**arguments).frames
    assert error(latents, expected["latents.final"]) < FINAL
    assert made.denoising_unet.sizes.count(2 * case["context_frames"]) == 1  # tried once, not once a window
    printed = capsys.readouterr().err
    assert printed.count("out of memory: continuing with the smaller plan sequential") == 1


def test_out_of_memory_below_the_last_plan_is_an_error(capsys):
    made = own_pipeline()
    made.denoising_unet = Scarce(made.denoising_unet, 0)
    _, _, poses, reference = load("pipeline_cfg")
    with pytest.raises(torch.OutOfMemoryError):
        made(reference, poses, width=32, height=32, num_inference_steps=1)
    assert capsys.readouterr().err.count("continuing") == len(PLANS) - 1


def test_other_errors_are_not_handled_as_out_of_memory():
    assert not is_out_of_memory(RuntimeError("sizes do not match"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    offloader = ModelOffloader(lambda: {"one": nn.Linear(1, 1)})

    def broken():
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes"):
        offloader.within_memory(broken)
    assert offloader.plan is HIGH


class Traveller(nn.Module):
    """A model that records the devices it was moved to."""

    def __init__(self):
        super().__init__()
        self.device = CPU

    def _apply(self, function, recurse=True):
        parameter = Mock()
        function(parameter)
        self.device = parameter.to.call_args.args[0]
        return self


def plans_tried(offloader: ModelOffloader) -> list[str]:
    """The plans tried for a function that runs out of memory once."""
    attempts = []

    def scarce():
        attempts.append(offloader.plan.name)
        if len(attempts) == 1:
            raise torch.OutOfMemoryError("out of memory")

    offloader.within_memory(scarce)
    return attempts


def places(models) -> dict[str, str]:
    return {name: model.device.type for name, model in models.items()}


def test_models_are_offloaded_until_they_are_used():
    models = {name: Traveller() for name in ("vae", "unet", "guider")}
    offloader = ModelOffloader(lambda: models, GPU, LOW)
    offloader.use("vae")
    assert places(models) == {"vae": "cuda", "unet": "cpu", "guider": "cpu"}
    offloader.use("unet", "guider")
    assert places(models) == {"vae": "cpu", "unet": "cuda", "guider": "cuda"}


def test_without_offloading_models_stay_on_the_device():
    models = {name: Traveller() for name in ("vae", "unet")}
    offloader = ModelOffloader(lambda: models, GPU, HIGH)
    offloader.use("vae")
    offloader.use("unet")
    assert places(models) == {"vae": "cuda", "unet": "cuda"}


def test_features_of_overlapping_windows_are_counted_as_often_as_they_are_kept():
    """400 frames in windows of 48, eight apart: each frame is in six of them, and the whole does not fit."""
    plain, overlapping = (Workload(512, 512, 48, 400, True, overlap) for overlap in (0, 40))
    assert sum(map(len, overlapping.windows)) == 45 * 48
    kept, anew = (peak_bytes(full_size(), HIGH, work)["denoising"] for work in (plain, overlapping))
    assert kept - anew == (9 * 48 - 48) * 320 * 64 * 64 * 2


@torch.no_grad()
def test_sampling_under_autocast():
    """A training's validation: latents in one type, predictions in another."""
    _, _, poses, reference = load("pipeline_cfg")
    with torch.autocast("cpu", torch.bfloat16):
        (latents,) = pipeline()(
            reference, poses, width=32, height=32, num_inference_steps=1, output_type="latent", return_dict=False
        )
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def test_models_in_training_are_not_offloaded():
    models = {name: Traveller() for name in ("vae", "unet")}
    offloader = ModelOffloader(lambda: models, GPU, BY_NAME["medium"], offloads=False)
    offloader.use("vae")
    offloader.use("unet")
    assert plans_tried(offloader) == ["medium", "low"]
    assert places(models) == {"vae": "cuda", "unet": "cuda"}


@pytest.mark.requires_cuda
@torch.no_grad()
def test_peak_on_a_gpu_is_what_was_estimated():
    """The UNet step alone, full size, 512 pixels, 8 frames, without pose features."""
    unet = UNet(motion_module=MOTION_CONFIG).to("cuda", torch.float16).eval()
    context = unet.prepare(torch.zeros(2, 1, 768, device="cuda", dtype=torch.float16))
    sample = torch.randn(16, 4, 64, 64, device="cuda", dtype=torch.float16)
    unet(sample, 500.0, context, frames=8)
    torch.cuda.reset_peak_memory_stats()
    unet(sample, 500.0, context, frames=8)
    measured = torch.cuda.max_memory_allocated()
    empty = full_size().denoising_unet
    context = empty.prepare(torch.empty(2, 1, 768, device="meta", dtype=torch.float16))
    sample = torch.empty(16, 4, 64, 64, device="meta", dtype=torch.float16)
    with MetaDeviceMode(), LiveMemory([*empty.parameters(), *empty.buffers(), sample]) as counted:
        empty(sample, 500.0, context, frames=8)
    assert measured == pytest.approx(counted.peak, rel=0.15)  # kernels' workspaces, and blocks of 2 MB


def test_configs_that_make_no_model_are_refused_before_an_estimate(tmp_path):
    paths = write_published_layout(tmp_path)
    Path(paths.vae / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is no JSON"):
        meta_pipeline(paths, torch.float32)


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Mock(available=8 * GIB))  # other programs change the true one
    assert free_memory(CPU) == 8 * GIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == 2 * GIB


def test_after_an_error_models_return_to_their_device():
    """A pipeline that was moved as a whole: its device is recorded before models are offloaded."""
    models = {name: Traveller() for name in ("vae", "unet")}
    for model in models.values():
        model.weight = nn.Parameter(torch.empty(1, device="meta"))
    offloader = ModelOffloader(lambda: models, None, BY_NAME["medium"])
    offloader.use("unet")
    assert plans_tried(offloader) == ["medium", "low"]
    assert places(models) == {"vae": "cpu", "unet": "meta"}
