"""Parts that several of the PyTorch networks share."""

import torch
from torch import nn


class DropPath(nn.Module):
    """Zeroes a residual branch for whole samples and rescales the others."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        alive = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * alive / keep


def rising_rates(rate, depth):
    return torch.linspace(0.0, rate, depth, device="cpu").tolist()


class ChannelMLP(nn.Module):
    """Linear, exact GELU, linear over the last axis."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))
