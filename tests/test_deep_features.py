"""Features of the UNet's deeper layers, kept from step to step: exact for equal inputs, equal for all memory plans."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler
from test_memory import shallow
from test_pipeline import SHORT, pipeline, poses, reference
from tolerance import network_rounding

from musepose.inference.memory_estimate import Workload, peak_bytes
from musepose.memory.plan import HIGH, LOW, PLANS
from musepose.models.unet import DeepFeatures
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose2video import Pose2VideoPipeline
from random_models.tiny_weights import tiny_models

CACHED = SHORT | {"num_inference_steps": 5, "guidance_every": 3, "cache_interval": 2, "output_type": "latent"}


def inputs():
    generator = torch.Generator().manual_seed(0)
    token = torch.randn(1, 1, pipeline().denoising_unet.config.cross_attention_dim, generator=generator)
    return torch.randn(3, 4, 5, 4, generator=generator), 500.0, pipeline().denoising_unet.prepare(token)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 6, 7])
@torch.no_grad()
def test_a_shallow_pass_on_the_same_input_is_the_whole_pass(layers):
    unet = pipeline().denoising_unet
    assert layers < unet.up_layers
    deep = DeepFeatures(layers)
    plain = unet(*inputs(), frames=3)
    whole = unet(*inputs(), frames=3, deep=deep)
    kept = deep.value.clone()
    assert torch.equal(whole, plain)
    assert torch.equal(unet(*inputs(), frames=3, deep=deep), plain)
    assert torch.equal(deep.value, kept)  # not overwritten: further steps use it


@torch.no_grad()
def test_a_shallow_pass_runs_no_deeper_layer():
    unet, ran = pipeline().denoising_unet, []
    deep = DeepFeatures(2)
    unet(*inputs(), frames=3, deep=deep)
    named = {name: module for name, module in unet.named_modules() if ".resnets." in name and name.count(".") == 3}
    named |= {name: module for name, module in unet.named_modules() if name.startswith("mid_block.resnets.")}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in named.items()
        if name.count(".") == (2 if name.startswith("mid") else 3)
    ]
    try:
        unet(*inputs(), frames=3, deep=deep)
    finally:
        for hook in hooks:
            hook.remove()
    last = len(unet.up_blocks) - 1
    count = len(unet.up_blocks[-1].resnets)
    expected = ["down_blocks.0.resnets.0", *(f"up_blocks.{last}.resnets.{i}" for i in range(count - 2, count))]
    assert ran == expected


@cache
def sampled() -> tuple[torch.Tensor, float]:
    """Latents, and the bound for their rounding."""
    networks = pipeline().reference_unet, pipeline().denoising_unet
    results: list[torch.Tensor] = []  # the first is exact

    def sample() -> torch.Tensor:
        results.append(pipeline()(reference(), poses(7), **CACHED).frames)
        return results[-1]

    bound = network_rounding(sample, *networks)
    return results[0], bound


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_plan_gives_the_same_result(plan):
    expected, bound = sampled()
    own = Pose2VideoPipeline(**tiny_models(), scheduler=DDIMScheduler(**pipeline().scheduler.config))
    own.offloader.plan = replace(plan, offload=False)
    assert (own(reference(), poses(7), **CACHED).frames - expected).abs().max() < bound


class Threads:
    """What sampling uses of a ProcessGroup, for threads that stand for its processes."""

    def __init__(self, rank: int, given: list, barrier: threading.Barrier):
        self.rank, self.count, self._given, self._barrier = rank, len(given), given, barrier

    def start_gather(self, tensor):
        self._given[self.rank] = tensor.clone()
        self._barrier.wait(60)
        gathered = torch.stack(self._given)
        self._barrier.wait(60)
        return lambda: gathered


@pytest.mark.parametrize("shift", [0, 1])
def test_each_process_forecasts_from_features_of_its_own(shift):
    """Two windows, with a shift three, of two branches for three processes."""
    arguments, (expected, bound) = CACHED | {"shift": shift}, sampled()
    if shift:
        expected = pipeline()(reference(), poses(7), **arguments).frames
    given, barrier, processes = [None] * 3, threading.Barrier(3), []
    for rank in range(3):
        own = Pose2VideoPipeline(**tiny_models(), scheduler=DDIMScheduler(**pipeline().scheduler.config))
        own.group = Threads(rank, given, barrier)
        processes.append(own)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(own, reference(), poses(7), num_frames=7, **arguments) for own in processes]
        together = [run.result().frames for run in runs]
    assert all(torch.equal(one, together[0]) for one in together)
    assert (together[0] - expected).abs().max() < bound


def test_it_is_an_approximation_and_only_where_asked_for():
    exact, same, approximate = (
        pipeline()(
            reference(), poses(3), **SHORT | {"output_type": "latent", "num_inference_steps": 3} | changes
        ).frames
        for changes in ({}, {"cache_branch": 2}, {"cache_interval": 2})
    )
    assert torch.equal(exact, same)
    assert not torch.equal(exact, approximate)


def test_more_layers_than_the_unet_has():
    most = pipeline().denoising_unet.up_layers - 2
    pipeline().check(SamplingOptions(**SHORT, cache_interval=2, cache_branch=most))
    with pytest.raises(ValueError, match=f"cache_branch is {most + 1}: this UNet has 0 to {most}"):
        pipeline().check(SamplingOptions(**SHORT, cache_interval=2, cache_branch=most + 1))


def test_kept_features_are_counted():
    """32 channels of 64 x 64 in half precision, both CFG branches, of all windows' frames, of two steps."""
    length, window = 136, 48
    approximate = SamplingOptions(cache_interval=3)
    works = [Workload(512, 512, window, length, True, 4, more) for more in (SamplingOptions(), approximate)]
    for plan, expected in ((HIGH, 2 * (2 * 3 * 48 - 48) * 32 * 64 * 64 * 2), (LOW, 0)):
        plain, cached = (peak_bytes(shallow(), plan, work)["denoising"] for work in works)
        window_itself = 2 * 48 * 32 * 64 * 64 * 2
        assert expected <= cached - plain <= expected + 1.01 * window_itself
