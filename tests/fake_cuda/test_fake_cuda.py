"""What fake CUDA refuses, records and makes up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.fake_cuda import CUDA, ROWS, FakeCuda
from triplaneturbo.distill import scores
from triplaneturbo.distill.scores import ScoreSettings

pytestmark = pytest.mark.usefixtures("cuda")


def _cuda(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, device=CUDA)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: _cuda(4) + torch.ones(4),
        lambda: F.linear(_cuda(2, 4), torch.ones(3, 4)),
        lambda: F.grid_sample(_cuda(1, 1, 4, 4), torch.zeros(1, 2, 2, 2), align_corners=False),
        lambda: torch.stack((_cuda(4), torch.ones(4))),
        lambda: torch.ones(4)[torch.zeros(2, dtype=torch.int64, device=CUDA)],
        lambda: torch.rand(4, device=CUDA, generator=torch.Generator()),
        lambda: _cuda(4).numpy(),
    ],
)
def test_mixed_devices_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda half: F.linear(half, _cuda(3, 4)),
        lambda half: half @ _cuda(4, 3),
        lambda half: F.conv2d(half[None, :, :, None], _cuda(1, 2, 1, 1)),
        lambda half: F.layer_norm(half, (4,), _cuda(4), _cuda(4)),
        lambda half: F.group_norm(half, 2, _cuda(2), _cuda(2)),
        lambda half: F.scaled_dot_product_attention(half, half, _cuda(2, 4)),
        lambda half: _cuda(2, 4).index_put((torch.zeros(2, dtype=torch.int64, device=CUDA),), half),
    ],
)
def test_mixed_precisions_are_refused(wrong: Callable[[Tensor], object]) -> None:
    with pytest.raises(RuntimeError):
        wrong(_cuda(2, 4, dtype=torch.float16))


def test_gradients_have_the_device_and_dtype_of_their_tensors() -> None:
    layer = nn.Linear(4, 3).to(CUDA)
    x = torch.zeros(2, 4, device=CUDA, requires_grad=True)
    layer(x).relu().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert (tensor.grad.device, tensor.grad.dtype) == (CUDA, tensor.dtype)
        assert tensor.grad.shape == tensor.shape


def test_the_cpu_computes_as_always() -> None:
    x = torch.arange(3.0, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 4]
    assert x.detach().to(CUDA).cpu().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: x.cpu(), "download"),
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: bool((x > 0).any()), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "mask"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.ones(4).to(x), "upload"),
        (lambda x: x.new_tensor([1.0, 2.0]), "upload"),
        (lambda x: torch.tensor([1.0], device=x.device), "upload"),
        (lambda x: x[torch.tensor([0, 1])], "upload"),
        (lambda x: x.copy_(torch.ones(4)), "upload"),
    ],
)
def test_waits_for_the_gpu_are_recorded(cuda: FakeCuda, call: Callable[[Tensor], object], kind: str) -> None:
    x = _cuda(4)
    cuda.synchronizations.clear()
    call(x)
    assert [found.kind for found in cuda.synchronizations] == [kind]


def test_what_stays_on_the_gpu_is_not_recorded(cuda: FakeCuda) -> None:
    x = _cuda(4, 4)
    cuda.synchronizations.clear()
    torch.where(x > 0, x @ x, torch.zeros_like(x)).softmax(-1).masked_fill_(x > 1, 2).sum().add(1)
    x[x > 0] = 0  # the same as masked_fill
    assert not cuda.synchronizations


def test_sizes_that_depend_on_data_are_made_up() -> None:
    assert _cuda(4, 4).nonzero().shape == (ROWS, 2)
    assert _cuda(4, 3)[torch.ones(4, dtype=torch.bool, device=CUDA)].shape == (ROWS, 3)


def test_a_loop_over_a_condition_ends() -> None:
    """The inversion of ISM has such a loop."""
    times = torch.full((2,), 400, device=CUDA)
    teacher = SimpleNamespace(
        alphas=torch.linspace(0.99, 0.01, 1000), unconditional=lambda _: None, predict=lambda x, *_: (x, None)
    )
    z = _cuda(2, 1, 4, 8, 8)
    noisy, noise = scores._inverted(teacher, z, times, None, ScoreSettings(kind="ism"))
    assert noisy.shape == noise.shape == z.shape
