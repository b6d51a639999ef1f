"""Swin and Focal Transformer in PyTorch: attention within windows of a map.

Swin rolls maps, cuts them into windows and masks them where they wrap. Maps that
windows do not tile are padded as the authors' detectors pad them. Along an axis that a
window covers it is as long as the map and not shifted; of the table of distances, which
the authors then make smaller, a part is used.

Focal rolls maps four ways to see around a window, and unfolds pooled windows.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kmlp.pytorch.parts import (
    DropPath,
    PatchEmbedding,
    channel_mlp,
    rising_rates,
    stage,
)

MASKED = -100.0


def cut(x: Tensor, window: Sequence[int]) -> Tensor:
    """Cut (N, H, W, C) into windows (N·windows, positions, C)."""
    n, height, width, channels = x.shape
    a, b = window
    x = x.reshape(n, height // a, a, width // b, b, channels)
    return x.transpose(2, 3).reshape(-1, a * b, channels)


def joined(x: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """Join windows (N·windows, positions, C) to maps (N, H, W, C)."""
    (a, b), (height, width) = window, size
    x = x.reshape(-1, height // a, width // b, a, b, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


def distances(side: int, key_side: int) -> Tensor:
    """Return the bias table's entry for each query of a window and key of a region."""
    query = torch.arange(side, device="cpu")[:, None]
    steps = query - query.new_tensor(range(key_side)) + key_side - 1
    rows, columns = steps[:, None, :, None], steps[None, :, None, :]
    return (rows * (side + key_side - 1) + columns).reshape(side**2, key_side**2)


def shift_mask(
    size: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> Tensor:
    """Return what masks, in each window, positions that wrap from those that do not."""
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
    return apart * MASKED  # (windows, positions, positions)


class WindowAttention(nn.Module):
    relative_position_index: Tensor

    def __init__(self, width: int, window_size: int, heads: int):
        super().__init__()
        self.window_size, self.heads = window_size, heads
        table = torch.zeros((2 * window_size - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(table)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = distances(window_size, window_size).to(table.device)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def bias(self, window: Sequence[int]) -> Tensor:
        index, (a, b) = self.relative_position_index, window
        if a * b != len(index):
            whole = index.view(*[self.window_size] * 4)
            index = whole[:a, :b, :a, :b].reshape(a * b, a * b)
        bias = self.relative_position_bias_table[index.reshape(-1)]
        return bias.view(a * b, a * b, -1).permute(2, 0, 1).contiguous()

    def forward(
        self, x: Tensor, window: Sequence[int], mask: Tensor | None = None
    ) -> Tensor:
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
    attn_mask: Tensor

    def __init__(self, width, heads, window_size, shift, drop_path_rate, size):
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window_size, heads)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = channel_mlp(width, 4 * width)
        self.size = None
        if (
            shift
            and size
            and all(s > window_size and not s % window_size for s in size)
        ):
            self.size = tuple(size)
            mask = shift_mask(size, *[[v] * 2 for v in (window_size, shift)])
            self.register_buffer("attn_mask", mask, persistent=False)

    def mix(self, x: Tensor) -> Tensor:
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

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mix(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        places = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(places, -1)))


class PaddedEmbedding(PatchEmbedding):
    """Patch embedding of images of any size."""

    def forward(self, x: Tensor) -> Tensor:
        patch = self.proj.stride[0]
        x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
        return super().forward(x)


class SwinTransformer(nn.Module):
    """Any size works; masks of `img_size`, a side or a pair, are kept as buffers."""

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int = 7,
        patch_size: int = 4,
        img_size: int | Sequence[int] | None = 224,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        sides = [img_size] * 2 if isinstance(img_size, int) else img_size
        size = sides and [-(-side // patch_size) for side in sides]
        self.patch_embed = PaddedEmbedding(3, embed_dim, patch_size)
        self.layers = nn.Sequential()
        rates = rising_rates(drop_path_rate, depths)
        for i, (own, heads) in enumerate(zip(rates, num_heads, strict=True)):
            width = embed_dim * 2**i
            shifts = [block % 2 * (window_size // 2) for block in range(len(own))]
            blocks = [
                SwinBlock(width, heads, window_size, shift, rate, size)
                for shift, rate in zip(shifts, own)
            ]
            last = i == len(depths) - 1
            self.layers.append(stage(blocks, None if last else PatchMerging(width)))
            size = size and [-(-side // 2) for side in size]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.layers(self.patch_embed(x)))
        return self.head(x.mean((1, 2)))


class FocalAttention(nn.Module):
    own: Tensor
    around: Tensor
    pooled: Tensor

    def __init__(self, width, heads, side, focal_window, expand_size):
        super().__init__()
        self.heads, self.side = heads, side
        self.focal_window, self.expand_size = focal_window, expand_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * side - 1) ** 2, heads)
        )
        self.register_buffer("own", distances(side, side), persistent=False)
        if expand_size:
            corners = torch.ones(4, side, side, dtype=torch.bool, device="cpu")
            inner = side - expand_size
            for corner, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                rows = slice(expand_size, None) if row else slice(inner)
                columns = slice(expand_size, None) if column else slice(inner)
                corners[corner, rows, columns] = False
            around = corners.flatten().nonzero().flatten()
            self.register_buffer("around", around, persistent=False)
            self.relative_position_bias_table_to_neighbors = nn.Parameter(
                0.02 * torch.randn(1, heads, side**2, len(around))
            )
        if self.focal_window:
            entries = (side + focal_window - 1) ** 2
            self.relative_position_bias_table_to_windows = nn.ParameterList(
                [nn.Parameter(0.02 * torch.randn(heads, entries))]
            )
            index = distances(side, focal_window)
            self.register_buffer("pooled", index, persistent=False)

    def by_head(self, x: Tensor) -> Tensor:
        """Split (windows, positions, C) to (windows, heads, positions, C/heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def windows(self, x: Tensor) -> Tensor:
        """Cut (N, H, W, C) into (N·windows, side·side, C)."""
        return cut(x, (self.side, self.side))

    def rolled(self, x: Tensor) -> Tensor:
        """Gather the positions around each window out of four rolled maps."""
        e = self.expand_size
        maps = [x.roll(shift, (1, 2)) for shift in ((-e, -e), (-e, e), (e, -e), (e, e))]
        return torch.cat([self.windows(m) for m in maps], dim=1)[:, self.around]

    def unfolded(self, x: Tensor) -> Tensor:
        """Gather pooled windows around each: (N, h, w, C) to (N·h·w, f·f, C)."""
        f = self.focal_window
        x = F.unfold(x.permute(0, 3, 1, 2), f, padding=f // 2)  # (N, C·f·f, h·w)
        return x.unflatten(1, (-1, f * f)).permute(0, 3, 2, 1).flatten(0, 1)

    def bias(self) -> Tensor:
        tables = [self.relative_position_bias_table[self.own].permute(2, 0, 1)]
        if self.expand_size:
            tables.append(self.relative_position_bias_table_to_neighbors[0])
        if self.focal_window:
            table = self.relative_position_bias_table_to_windows[0]
            tables.append(table[:, self.pooled])
        return torch.cat(tables, dim=-1)

    def forward(self, x: Tensor, pooled: Tensor | None) -> Tensor:
        """Attend from maps (N, H, W, C) to them and pooled windows (N, h, w, C)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        seen = [[self.windows(part)] for part in (key, value)]
        if self.expand_size:
            for parts, part in zip(seen, (key, value), strict=True):
                parts.append(self.rolled(part))
        if self.focal_window:
            for parts, part in zip(seen, self.qkv(pooled).chunk(3, -1)[1:]):
                parts.append(self.unfolded(part))
        key, value = (self.by_head(torch.cat(parts, dim=1)) for parts in seen)
        query = self.by_head(self.windows(query))
        query = query * query.shape[-1] ** -0.5
        logits = query @ key.transpose(2, 3) + self.bias()
        if self.focal_window and pooled is not None:
            there = self.unfolded(torch.ones_like(pooled[:, :, :, :1]))
            logits[..., -there.shape[1] :] += (
                MASKED * (1 - there.transpose(1, 2))[:, None]
            )
        x = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.proj(x)


class FocalBlock(nn.Module):
    def __init__(self, width, heads, side, focus, mlp_ratio, drop_path_rate):
        super().__init__()
        self.side = side
        focal_level, focal_window, expand_size = focus
        pools = [nn.Linear(side**2, 1)] if focal_level > 1 else []
        self.pool_layers = nn.ModuleList(pools)
        self.norm1 = nn.LayerNorm(width)
        focal_window = focal_window if focal_level > 1 else 0
        self.attn = FocalAttention(width, heads, side, focal_window, expand_size)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = channel_mlp(width, int(mlp_ratio * width))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        window = self.side, self.side
        normed, pooled = self.norm1(x), None
        if len(self.pool_layers):
            pooled = self.pool_layers[0](cut(normed, window).transpose(1, 2))
            grid = height // self.side, width // self.side
            pooled = pooled.reshape(batch, *grid, channels)
        mixed = joined(self.attn(normed, pooled), window, (height, width))
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Downsampling(PatchEmbedding):
    """Patch embedding of NHWC maps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2))


class FocalTransformer(nn.Module):
    """Without shift; windows tile the maps of `img_size`.

    `focal_stages`, `expand_stages`, `focal_pool` and `expand_layer` are there because
    published configurations name them: every stage and block has all of it.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4,
        focal_levels: Sequence[int] = (2, 2, 2, 2),
        focal_windows: Sequence[int] = (7, 5, 3, 1),
        expand_sizes: Sequence[int] = (3, 3, 3, 3),
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        focal_stages: object = None,
        expand_stages: object = None,
        focal_pool: str = "fc",
        expand_layer: str = "all",
    ):
        super().__init__()
        sizes = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_embed = PatchEmbedding(3, embed_dim, patch_size)
        self.layers = nn.Sequential()
        for i, own in enumerate(rising_rates(drop_path_rate, depths)):
            width = embed_dim * 2**i
            smaller = min(sizes) // (patch_size * 2**i)
            # A map that a window covers is not expanded.
            expand_size = expand_sizes[i] if smaller > window_size else 0
            focus = focal_levels[i], focal_windows[i], expand_size
            block = width, num_heads[i], min(window_size, smaller), focus, mlp_ratio
            blocks = [FocalBlock(*block, rate) for rate in own]
            last = i == len(depths) - 1
            down = None if last else Downsampling(width, 2 * width, 2)
            self.layers.append(stage(blocks, down))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.layers(self.patch_embed(x)))
        return self.head(x.mean((1, 2)))
