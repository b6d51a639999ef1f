"""Focal Transformer in PyTorch: maps rolled four ways, pooled windows unfolded."""

import torch
import torch.nn.functional as F
from torch import nn

from kmlp.pytorch.parts import ChannelMLP, DropPath, rising_rates

MASKED = -100.0


def windows_of(x, side):
    """(N, H, W, C) to (N·windows, side·side, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def distances(side, key_side):
    """Entry of the bias table for each query of a window and each key of a region."""
    query = torch.arange(side, device="cpu")[:, None]
    steps = query - query.new_tensor(range(key_side)) + key_side - 1
    rows, columns = steps[:, None, :, None], steps[None, :, None, :]
    return (rows * (side + key_side - 1) + columns).reshape(side**2, key_side**2)


class PatchEmbedding(nn.Module):
    """Patch-wise projection, then LayerNorm over channels: NCHW to (N, H, W, C)."""

    def __init__(self, inputs, width, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class FocalAttention(nn.Module):
    def __init__(self, width, heads, side, focal_window, focal_level, expand_size):
        super().__init__()
        self.heads, self.side, self.expand_size = heads, side, expand_size
        self.focal_window = focal_window if focal_level > 1 else 0
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

    def by_head(self, x):
        """(windows, positions, C) to (windows, heads, positions, C/heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def rolled(self, x):
        """Positions around each window, out of four rolled maps."""
        e = self.expand_size
        maps = [x.roll(shift, (1, 2)) for shift in ((-e, -e), (-e, e), (e, -e), (e, e))]
        corners = torch.cat([windows_of(m, self.side) for m in maps], dim=1)
        return corners[:, self.around]

    def unfolded(self, x):
        """The region of pooled windows around each: (N, h, w, C) to (N·h·w, f·f, C)."""
        f = self.focal_window
        x = F.unfold(x.permute(0, 3, 1, 2), f, padding=f // 2)  # (N, C·f·f, h·w)
        return x.unflatten(1, (-1, f * f)).permute(0, 3, 2, 1).flatten(0, 1)

    def bias(self):
        tables = [self.relative_position_bias_table[self.own].permute(2, 0, 1)]
        if self.expand_size:
            tables.append(self.relative_position_bias_table_to_neighbors[0])
        if self.focal_window:
            table = self.relative_position_bias_table_to_windows[0]
            tables.append(table[:, self.pooled])
        return torch.cat(tables, dim=-1)

    def forward(self, x, pooled):
        """Maps (N, H, W, C) of positions and (N, h, w, C) of pooled windows."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        seen = [[windows_of(part, self.side)] for part in (key, value)]
        if self.expand_size:
            for parts, part in zip(seen, (key, value), strict=True):
                parts.append(self.rolled(part))
        if self.focal_window:
            for parts, part in zip(seen, self.qkv(pooled).chunk(3, -1)[1:]):
                parts.append(self.unfolded(part))
        key, value = (self.by_head(torch.cat(parts, dim=1)) for parts in seen)
        query = self.by_head(windows_of(query, self.side))
        query = query * query.shape[-1] ** -0.5
        logits = query @ key.transpose(2, 3) + self.bias()
        if self.focal_window:
            there = self.unfolded(torch.ones_like(pooled[:, :, :, :1]))
            logits[..., -there.shape[1] :] += (
                MASKED * (1 - there.transpose(1, 2))[:, None]
            )
        x = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.proj(x)


class FocalBlock(nn.Module):
    def __init__(
        self,
        width,
        resolution,
        heads,
        window_size,
        expand_size,
        mlp_ratio,
        focal_level,
        focal_window,
        drop_path_rate,
    ):
        super().__init__()
        # A map that a window covers is not expanded.
        self.side = min(window_size, *resolution)
        expand_size = expand_size if min(resolution) > window_size else 0
        pools = [nn.Linear(self.side**2, 1)] if focal_level > 1 else []
        self.pool_layers = nn.ModuleList(pools)
        self.norm1 = nn.LayerNorm(width)
        self.attn = FocalAttention(
            width, heads, self.side, focal_window, focal_level, expand_size
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = ChannelMLP(width, int(mlp_ratio * width))

    def forward(self, x):
        batch, height, width, channels = x.shape
        grid = height // self.side, width // self.side
        normed, pooled = self.norm1(x), None
        if len(self.pool_layers):
            windows = windows_of(normed, self.side).transpose(1, 2)
            pooled = self.pool_layers[0](windows).reshape(batch, *grid, channels)
        # (N·h·w, side·side, C) -> (N, h, side, w, side, C)
        y = self.attn(normed, pooled)
        y = y.reshape(batch, *grid, self.side, self.side, channels).transpose(2, 3)
        x = x + self.drop_path(y.reshape(x.shape))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FocalStage(nn.Module):
    def __init__(self, blocks, downsample):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x):
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x.permute(0, 3, 1, 2))


class FocalTransformer(nn.Module):
    """Without shift; windows tile the maps of `img_size`.

    `focal_stages`, `expand_stages`, `focal_pool` and `expand_layer` are there because
    published configurations name them: every stage and block has all of it.
    """

    def __init__(
        self,
        embed_dim,
        depths,
        num_heads,
        img_size=224,
        patch_size=4,
        window_size=7,
        mlp_ratio=4,
        focal_levels=(2, 2, 2, 2),
        focal_windows=(7, 5, 3, 1),
        expand_sizes=(3, 3, 3, 3),
        num_classes=1000,
        drop_path_rate=0.0,
        focal_stages=None,
        expand_stages=None,
        focal_pool="fc",
        expand_layer="all",
    ):
        super().__init__()
        sizes = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_embed = PatchEmbedding(3, embed_dim, patch_size)
        rates = iter(rising_rates(drop_path_rate, sum(depths)))
        self.layers = nn.Sequential()
        for i, depth in enumerate(depths):
            width = embed_dim * 2**i
            blocks = [
                FocalBlock(
                    width,
                    [size // (patch_size * 2**i) for size in sizes],
                    num_heads[i],
                    window_size,
                    expand_sizes[i],
                    mlp_ratio,
                    focal_levels[i],
                    focal_windows[i],
                    next(rates),
                )
                for _ in range(depth)
            ]
            last = i == len(depths) - 1
            down = None if last else PatchEmbedding(width, 2 * width, 2)
            self.layers.append(FocalStage(blocks, down))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.norm(self.layers(self.patch_embed(x)))
        return self.head(x.mean(dim=(1, 2)))
