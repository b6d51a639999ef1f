"""MS-MLP in PyTorch: channel chunks rolled and convolved depthwise, two paths."""

import torch
from torch import nn

from kmlp.pytorch.parts import DropPath, rising_rates

SHIFTS = (-2, -1, 0, 1, 2)


class PatchEmbedding(nn.Module):
    """Patch-wise projection, then LayerNorm over tokens: NCHW in, NCHW out."""

    def __init__(self, inputs, width, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.proj(x)
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (N, H·W, C)
        return tokens.transpose(1, 2).reshape(x.shape).contiguous()


class MixShiftBlock(nn.Module):
    def __init__(self, width, regions, drop_path_rate):
        super().__init__()
        groups = [len(chunk) for chunk in torch.arange(width).chunk(len(SHIFTS))]

        def depthwise_convs():
            return nn.ModuleList(
                nn.Conv2d(c, c, r, padding=r // 2, groups=c)
                for c, r in zip(groups, regions, strict=True)
            )

        self.dwconv_lr = depthwise_convs()
        self.dwconv_td = depthwise_convs()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.drop_path = DropPath(drop_path_rate)

    def mix(self, x, convs, axis):
        groups = zip(x.chunk(len(SHIFTS), dim=1), convs, SHIFTS, strict=True)
        mixed = [conv(chunk.roll(shift, axis)) for chunk, conv, shift in groups]
        return torch.cat(mixed, dim=1)

    def forward(self, x):
        mixed = self.mix(x, self.dwconv_lr, axis=3) + self.mix(
            x, self.dwconv_td, axis=2
        )
        # (N, C, H, W) -> (N, H, W, C) -> (N, C, H, W)
        mixed = self.norm(mixed.permute(0, 2, 3, 1))
        mixed = self.gamma * self.pwconv2(self.act(self.pwconv1(mixed)))
        return x + self.drop_path(mixed.permute(0, 3, 1, 2))


class MSMLPStage(nn.Module):
    def __init__(self, width, regions, rates, last):
        super().__init__()
        self.blocks = nn.Sequential(*[MixShiftBlock(width, regions, r) for r in rates])
        transition = nn.Identity() if last else PatchEmbedding(width, 2 * width, 2)
        self.downsample = transition

    def forward(self, x):
        return self.downsample(self.blocks(x))


class MSMLP(nn.Module):
    """`img_size` is there because published configurations name it: any size works."""

    def __init__(
        self,
        embed_dim,
        depths,
        mix_size,
        img_size=224,
        num_classes=1000,
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.patch_embed = PatchEmbedding(3, embed_dim, 4)
        rates = rising_rates(drop_path_rate, sum(depths))
        stages = []
        for i, (depth, regions) in enumerate(zip(depths, mix_size, strict=True)):
            own, rates = rates[:depth], rates[depth:]
            last = i == len(depths) - 1
            stages.append(MSMLPStage(embed_dim * 2**i, regions, own, last))
        self.layers = nn.Sequential(*stages)
        width = embed_dim * 2 ** (len(depths) - 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.layers(self.patch_embed(x))
        return self.head(self.norm(self.avgpool(x).flatten(1)))
