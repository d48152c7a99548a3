"""Adaptive density control: who is cloned, split, pruned and reset, and the optimizer's state."""

import pytest
import torch

from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.splatting.rasterizer import rasterize_gaussians
from triplaneturbo.representations.density_control import (
    DensityOptions,
    ViewSpaceGradients,
    densify,
    prune,
    reset_opacity,
)
from triplaneturbo.representations.gaussians import Gaussians
from triplaneturbo.utils import quaternions as rotations

OPTIONS = DensityOptions(min_gradient=0.5, clone_scale=0.01, min_opacity=0.005, max_scale=0.1)


def gaussians_with(scales, opacity=0.6):
    count = len(scales)
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        torch.randn(count, 3, generator=generator),
        torch.tensor(scales).log()[:, None].expand(count, 3) + torch.tensor([0.0, -1.0, -2.0]),
        torch.randn(count, 4, generator=generator),
        torch.logit(torch.full((count,), opacity)),
        torch.rand(count, 3, generator=generator),
    )


def gradients_with(norms):
    gradients = ViewSpaceGradients(len(norms))
    gradients.total, gradients.views = torch.tensor(norms) * 2, torch.full((len(norms),), 2.0)
    return gradients


def optimizer_of(gaussians):
    optimizer = torch.optim.Adam(gaussians.parameter_groups(1.0))
    sum(parameter.square().sum() for parameter in gaussians.parameters()).backward()
    optimizer.step()
    return optimizer


def generator():
    return torch.Generator().manual_seed(0)


def test_small_gaussians_are_cloned_and_large_ones_split():
    gaussians = gaussians_with([0.005, 0.005, 0.05, 0.05])
    optimizer = optimizer_of(gaussians)
    before = {name: value.detach().clone() for name, value in gaussians.named_parameters()}
    gradients = gradients_with([1.0, 0.1, 1.0, 0.1])
    assert densify(gaussians, gradients, 1.0, OPTIONS, generator(), optimizer) == (1, 1)
    assert len(gaussians) == 6  # the kept 0, 1, 3, the clone of 0, two halves of 2
    for name, value in gaussians.named_parameters():
        assert torch.equal(value[:4], before[name][[0, 1, 3, 0]])
        state = optimizer.state[value]
        assert (state["exp_avg"][:3] != 0).all()
        assert not state["exp_avg"][3:].any()
        if name not in ("means", "log_scales"):
            assert torch.equal(value[4:], before[name][[2, 2]])
    torch.testing.assert_close(gaussians.scales[4:], before["log_scales"][[2, 2]].exp() / 1.6)
    assert not torch.equal(gaussians.means[4], gaussians.means[5])


def test_split_positions_are_sampled_from_the_gaussian():
    gaussians = gaussians_with([0.05]).double()
    many = Gaussians(*(value.expand(20_000, *value.shape[1:]) for value in gaussians.parameters()))
    densify(many, gradients_with([1.0] * 20_000), 1.0, OPTIONS, generator())
    assert len(many) == 40_000
    offsets = many.means - gaussians.means
    own = offsets @ rotations.to_matrices(gaussians.quaternions[0])  # along the Gaussian's own axes
    torch.testing.assert_close(own.std(0), gaussians.scales[0], rtol=0.02, atol=0)
    assert (own.mean(0).abs() < 0.03 * gaussians.scales[0]).all()


def test_thresholds_scale_with_the_extent():
    """The same scene in other units is treated alike."""
    for unit in (1.0, 100.0):
        gaussians = gaussians_with([0.005 * unit, 0.05 * unit, 0.5 * unit])
        assert densify(gaussians, gradients_with([1.0] * 3), unit, OPTIONS, generator()) == (1, 2)
        assert prune(gaussians, unit, OPTIONS) == 2


def test_number_of_gaussians_is_limited():
    gaussians = gaussians_with([0.005] * 4)
    means = gaussians.means.detach().clone()
    options = DensityOptions(min_gradient=0.5, max_count=6)
    assert densify(gaussians, gradients_with([0.6, 0.9, 0.7, 0.8]), 1.0, options, generator()) == (2, 0)
    assert torch.equal(gaussians.means[4:], means[[1, 3]])
    assert densify(gaussians, gradients_with([1.0] * 6), 1.0, options, generator()) == (0, 0)


def test_transparent_and_oversized_gaussians_are_pruned():
    gaussians = gaussians_with([0.01, 0.2, 0.01])
    optimizer = optimizer_of(gaussians)
    with torch.no_grad():
        gaussians.opacity_logits[2] = -6.0  # 0.0025
    kept = gaussians.means.detach()[:1].clone()
    assert prune(gaussians, 1.0, OPTIONS, optimizer) == 2
    assert torch.equal(gaussians.means, kept)
    assert optimizer.state[gaussians.means]["exp_avg"].shape == (1, 3)
    assert prune(gaussians, 1.0, OPTIONS, optimizer) == 0
    large = gaussians_with([0.5])
    assert prune(large, 1.0, DensityOptions(max_scale=None)) == 0


def test_opacities_are_reset():
    gaussians = gaussians_with([0.01] * 3)
    optimizer = optimizer_of(gaussians)
    with torch.no_grad():
        gaussians.opacity_logits[2] = -6.0
    reset_opacity(gaussians, optimizer)
    torch.testing.assert_close(gaussians.opacities[:2], torch.full((2,), 0.01))
    assert gaussians.opacity_logits[2] == -6
    assert not optimizer.state[gaussians.opacity_logits]["exp_avg"].any()
    assert optimizer.state[gaussians.means]["exp_avg"].any()


@pytest.mark.parametrize("size", [16, 48])
def test_gradients_of_renderings(size):
    """Mean norms do not depend on the number of views, and views without the Gaussian do not count."""
    gaussians = gaussians_with([0.2] * 5).double()
    with torch.no_grad():
        gaussians.means.mul_(0.3)
        gaussians.means[4] = torch.tensor([50.0, 0, 0])  # in no view
    results = []
    for azimuths in ([20.0], [20.0, 20.0, 20.0]):
        gradients = ViewSpaceGradients(5)
        cameras = orbit(azimuths, 10.0, 3.0, 40.0, dtype=torch.float64)
        values = (gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities)
        seen = rasterize_gaussians(*values, gaussians.colors, cameras, size, size)
        seen.means2d.retain_grad()
        seen.rgb.square().mean().backward()
        gradients.add(seen.means2d.grad, seen.visible, size, size)
        results.append(gradients.mean())
    assert gradients.views.tolist() == [3, 3, 3, 3, 0]
    torch.testing.assert_close(*results)
    assert (results[0][:4] > 0).all()
    assert results[0][4] == 0
