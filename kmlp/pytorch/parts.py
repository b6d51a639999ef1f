"""Parts that several of the published networks share."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes a residual branch for whole samples and rescales the others."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        alive = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * alive / keep


def rising_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Return each block's drop-path rate, from 0 to `rate`, by stage."""
    rates = iter(torch.linspace(0.0, rate, sum(depths), device="cpu").tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]


def chain(**parts: nn.Module) -> nn.Sequential:
    """Return modules that run one after another, by the names of their parameters."""
    return nn.Sequential(OrderedDict(parts))


def channel_mlp(width: int, hidden: int) -> nn.Sequential:
    """Return linear, exact GELU, linear over the last axis."""
    fc1, fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
    return chain(fc1=fc1, act=nn.GELU(), fc2=fc2)


def stage(blocks: Iterable[nn.Module], downsample: nn.Module | None) -> nn.Sequential:
    """Return blocks, then what makes the map smaller where a stage follows."""
    downsample = downsample or nn.Identity()
    return chain(blocks=nn.Sequential(*blocks), downsample=downsample)


class Permute(nn.Module):
    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


class PatchEmbedding(nn.Module):
    """Patch-wise projection, then LayerNorm over channels: NCHW to NHWC."""

    def __init__(self, inputs: int, width: int, patch_size: int, eps: float = 1e-5):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
