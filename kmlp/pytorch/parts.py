"""Parts that several of the published networks share."""

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


class ChannelMLP(nn.Module):
    """Linear, exact GELU, linear over the last axis."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbedding(nn.Module):
    """Patch-wise projection, then LayerNorm over channels: NCHW to NHWC."""

    def __init__(self, inputs: int, width: int, patch_size: int, eps: float = 1e-5):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Blocks, then what makes the map smaller for the next stage, if there is one."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))
