"""Swin Transformer in PyTorch: rolled maps cut into windows, masked where they wrap.

Maps that windows do not tile are padded as the authors' detectors pad them. Along an
axis that a window covers it is as long as the map and not shifted; of the table of
distances, which the authors then make smaller, a part is used.
"""

import torch
import torch.nn.functional as F
from torch import nn

from kmlp.pytorch.parts import ChannelMLP, DropPath, rising_rates


def cut(x, window):
    """(N, H, W, C) -> (N·windows, positions, C)"""
    n, height, width, channels = x.shape
    a, b = window
    x = x.view(n, height // a, a, width // b, b, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, a * b, channels)


def joined(x, window, size):
    """(N·windows, positions, C) -> (N, H, W, C)"""
    (a, b), (height, width) = window, size
    x = x.view(-1, height // a, width // b, a, b, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


def shift_mask(size, window, shift):
    """(windows, positions, positions) of -100 where what wraps meets what does not."""
    regions = torch.zeros(1, *size, 1)
    count = 0
    slices = [
        (slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),)
        for w, s in zip(window, shift)
    ]
    for rows in slices[0]:
        for columns in slices[1]:
            regions[:, rows, columns] = count
            count += 1
    regions = cut(regions, window).squeeze(-1)
    apart = regions.unsqueeze(1) != regions.unsqueeze(2)
    return apart * -100.0


class WindowAttention(nn.Module):
    def __init__(self, width, window_size, heads):
        super().__init__()
        self.window_size, self.heads = window_size, heads
        table = torch.zeros((2 * window_size - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(table)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        axis = torch.arange(window_size)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack([rows, columns]).flatten(1)
        steps = places[:, :, None] - places[:, None] + window_size - 1
        index = steps[0] * (2 * window_size - 1) + steps[1]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def bias(self, window):
        index, (a, b) = self.relative_position_index, window
        if a * b != len(index):
            whole = index.view(*[self.window_size] * 4)
            index = whole[:a, :b, :a, :b].reshape(a * b, a * b)
        bias = self.relative_position_bias_table[index.reshape(-1)]
        return bias.view(a * b, a * b, -1).permute(2, 0, 1).contiguous()

    def forward(self, x, window, mask=None):
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query = query * (width // self.heads) ** -0.5
        logits = query @ key.transpose(-2, -1) + self.bias(window)
        if mask is not None:
            count = len(mask)
            logits = logits.view(-1, count, self.heads, length, length)
            logits = logits + mask[:, None].to(logits)
            logits = logits.view(-1, self.heads, length, length)
        x = (logits.softmax(-1) @ value).transpose(1, 2)
        return self.proj(x.reshape(batch, length, width))


class SwinBlock(nn.Module):
    def __init__(self, width, heads, window_size, shift, drop_path_rate, size):
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window_size, heads)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = ChannelMLP(width, 4 * width)
        self.size = None
        tiled = size and all(s > window_size and s % window_size == 0 for s in size)
        if shift and tiled:
            self.size = tuple(size)
            mask = shift_mask(size, *[[v] * 2 for v in (window_size, shift)])
            self.register_buffer("attn_mask", mask, persistent=False)

    def mix(self, x):
        size = x.shape[1:3]
        window = [min(s, self.window_size) for s in size]
        shift = [self.shift if s > self.window_size else 0 for s in size]
        bottom, right = (-s % w for s, w in zip(size, window))
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        padded, mask = x.shape[1:3], None
        if any(shift):
            x = x.roll([-s for s in shift], (1, 2))
            known = self.size == tuple(padded)
            mask = self.attn_mask if known else shift_mask(padded, window, shift)
            mask = mask.to(x.device)
        x = joined(self.attn(cut(x, window), window, mask), window, padded)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, : size[0], : size[1]].contiguous()

    def forward(self, x):
        x = x + self.drop_path(self.mix(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        places = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(places, -1)))


class PatchEmbedding(nn.Module):
    """NCHW in, NHWC out."""

    def __init__(self, width, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        patch = self.proj.stride[0]
        x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
        return self.norm(self.proj(x).permute(0, 2, 3, 1).contiguous())


class SwinStage(nn.Module):
    def __init__(self, width, heads, window_size, rates, last, size):
        super().__init__()
        blocks = [
            SwinBlock(width, heads, window_size, i % 2 * (window_size // 2), rate, size)
            for i, rate in enumerate(rates)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.downsample = nn.Identity() if last else PatchMerging(width)

    def forward(self, x):
        return self.downsample(self.blocks(x))


class SwinTransformer(nn.Module):
    """Any size works; masks of `img_size`, a side or a pair, are kept as buffers."""

    def __init__(
        self,
        embed_dim,
        depths,
        num_heads,
        window_size=7,
        patch_size=4,
        img_size=224,
        num_classes=1000,
        drop_path_rate=0.0,
    ):
        super().__init__()
        sides = [img_size] * 2 if isinstance(img_size, int) else img_size
        size = sides and [-(-side // patch_size) for side in sides]
        self.patch_embed = PatchEmbedding(embed_dim, patch_size)
        rates = rising_rates(drop_path_rate, sum(depths))
        stages = []
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            own, rates = rates[:depth], rates[depth:]
            last = i == len(depths) - 1
            width = embed_dim * 2**i
            stages.append(SwinStage(width, heads, window_size, own, last, size))
            size = size and [-(-side // 2) for side in size]
        self.layers = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.norm(self.layers(self.patch_embed(x)))
        return self.head(x.mean((1, 2)))
