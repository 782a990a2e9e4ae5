"""AdamW and Muon with the training's settings."""

import copy

import pytest
import torch
from tiny_training import random_animator
from tolerance import rounding
from torch import nn

from musepose.training import optimizers
from musepose.training.config import Solver
from musepose.training.optimizers import Muon, make_optimizer, orthogonalise


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 2))


def muon(network: nn.Module, learning_rate: float = 1e-2, **settings) -> Muon:
    return make_optimizer(network.named_parameters(), Solver(optimizer="muon", learning_rate=learning_rate, **settings))


def backward(network: nn.Module) -> float:
    inputs = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    loss = (network(inputs) - inputs.sum((2, 3))[:, :2]).square().mean()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 16)])
def test_orthogonalising_keeps_directions_and_levels_singular_values(shape: tuple[int, int]):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalise(matrix[None])[0]
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    aligned = (left.mT @ found @ right.mT).diagonal()
    assert (aligned > 0.5).all()


@pytest.mark.parametrize("batch", [1, 2 * 64, 2**22])
def test_each_matrix_is_orthogonalised_by_itself(batch: int, monkeypatch: pytest.MonkeyPatch):
    """Matrices of one shape are orthogonalised together: each moves as it does alone, to half precision's rounding."""
    monkeypatch.setattr(optimizers, "BATCH", batch)
    torch.manual_seed(0)
    together = [nn.Parameter(torch.zeros(8, 8)) for _ in range(5)]
    scales = (1e-3, 1.0, 10.0, 0.1, 1e3)  # gradients of any size move a matrix as far
    gradients = [scale * torch.randn(8, 8) for scale in scales]
    for parameter, gradient in zip(together, gradients, strict=True):
        parameter.grad = gradient
    settings = {"lr": 1.0, "weight_decay": 0.0}
    Muon([{"params": together, "orthogonal": True}], **settings).step()
    for parameter, gradient in zip(together, gradients, strict=True):
        alone = nn.Parameter(torch.zeros(8, 8))
        alone.grad = gradient
        Muon([{"params": [alone], "orthogonal": True}], **settings).step()
        # Fifteen products of entries below 1, each rounded to bfloat16, with a margin of 3. Entries reach 0.3.
        bound = 0.2 * 8**0.5 * 15 * torch.finfo(torch.bfloat16).eps * 3
        assert alone.abs().max() > 1.2 * bound
        assert (parameter - alone).abs().max() < bound


def test_matrices_move_evenly_and_as_far_as_with_adamw():
    network = small_network()
    backward(network)
    kernel = network[0].weight
    before = kernel.detach().clone()
    muon(network, adam_weight_decay=0.0).step()
    moved = (kernel.detach() - before).flatten(1)
    values = torch.linalg.svdvals(moved) / (1e-2 * 0.2 * 27**0.5)
    assert values.min() > 0.5 and values.max() < 1.3  # what five iterations leave of 1
    assert moved.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.3)  # and so the values' root mean square


def test_a_step_keeps_gradients_and_decays_weights():
    network = small_network()
    backward(network)
    gradients = [p.grad.clone() for p in network.parameters()]
    before = network[3].weight.detach().clone()
    muon(network, adam_weight_decay=10.0).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    moved = network[3].weight.detach() - 0.9 * before
    assert torch.linalg.svdvals(moved).max() < 1.3 * 1e-2 * 0.2 * 8**0.5


def test_vectors_move_as_adamw_moves_them():
    network = small_network()
    other = copy.deepcopy(network)
    plain = make_optimizer(other.named_parameters(), Solver(learning_rate=1e-2))
    assert type(plain) is torch.optim.AdamW
    for model, optimizer in ((network, muon(network)), (other, plain)):
        backward(model)
        optimizer.step()
    torch.testing.assert_close(network[0].bias, other[0].bias, rtol=0, atol=0)
    assert not torch.equal(network[0].weight, other[0].weight)


def test_memory_layout_changes_nothing():
    plain, other = small_network(), small_network().to(memory_format=torch.channels_last)
    for network in (plain, other):
        optimizer = muon(network)
        for _ in range(3):
            optimizer.zero_grad()
            backward(network)
            optimizer.step()
    # Matrices are rounded to bfloat16, where float32's rounding may decide: of updates as large as this, three times.
    largest = 1e-2 * 0.2 * 27**0.5
    bound = rounding(3, largest, torch.bfloat16)
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=bound)
    update = (plain[0].weight - small_network()[0].weight).detach()
    in_another_order = update.permute(0, 2, 3, 1).reshape(update.shape)
    assert (update - in_another_order).abs().max() > 2 * bound


def test_a_reloaded_state_continues_identically():
    one, two = small_network(), small_network()
    first = muon(one)
    for _ in range(2):
        first.zero_grad()
        backward(one)
        first.step()
    two.load_state_dict(one.state_dict())
    second = muon(two)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for network, optimizer in ((one, first), (two, second)):
        optimizer.zero_grad()
        backward(network)
        optimizer.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_it_learns():
    network = small_network()
    optimizer = muon(network, learning_rate=0.1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(backward(network))
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_every_trained_parameter_is_in_one_group_and_the_ends_are_left_to_adamw():
    animator = random_animator(motion=True)
    animator.reference_unet.requires_grad_(False)
    names = {id(p): name for name, p in animator.named_parameters() if p.requires_grad}
    others, hidden = (
        [names.pop(id(p)) for p in group["params"]]
        for group in make_optimizer(animator.named_parameters(), Solver(optimizer="muon")).param_groups
    )
    assert not names
    assert "denoising_unet.conv_out.weight" in others and "denoising_unet.conv_in.weight" in others
    assert "denoising_unet.mid_block.resnets.0.conv1.weight" in hidden
    assert "pose_guider.conv_out.bias" in others
