"""sMLPNet in PyTorch: each axis in turn becomes the channels of a 1x1 convolution."""

import torch
from torch import nn
from torch.nn import functional as F

from kmlp.pytorch.parts import DropPath, rising_rates


class Permute(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(self.axes)


class LocalMixing(nn.Module):
    """BN, GELU, depthwise 3x3 convolution."""

    def __init__(self, width):
        super().__init__()
        conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.conv_merge = nn.ModuleDict({"BN": nn.BatchNorm2d(width), "Conv": conv})

    def forward(self, x):
        return self.conv_merge["Conv"](F.gelu(self.conv_merge["BN"](x)))


class SparseMLP(nn.Module):
    """BN, GELU, then identity, width and height mixing side by side, fused.

    The published names are crossed: `proj_h` mixes along the width, `proh_w` along the
    height.
    """

    def __init__(self, width, side):
        super().__init__()
        self.BN = nn.BatchNorm2d(width)
        self.proj_h = nn.Conv2d(side, side, 1)
        self.proh_w = nn.Conv2d(side, side, 1)
        self.fuse = nn.Conv2d(3 * width, width, 1, bias=False)

    def forward(self, x):
        x = F.gelu(self.BN(x))
        # (N, C, H, W) -> (N, W, C, H) -> (N, C, H, W)
        along_width = self.proj_h(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # (N, C, H, W) -> (N, H, C, W) -> (N, C, H, W)
        along_height = self.proh_w(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        return self.fuse(torch.cat([x, along_width, along_height], dim=1))


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        # The two Dropouts never drop; they keep the published indices 0 and 3.
        expand = nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0)
        self.net = nn.Sequential(*expand, nn.Linear(hidden, width), nn.Dropout(0.0))

    def forward(self, x):
        return self.net(x)


class SMLPNet(nn.Module):
    """Square images only, like the published network."""

    def __init__(
        self,
        dim,
        alpha,
        depths,
        image_size=224,
        num_classes=1000,
        patch_size=4,
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.depths = depths
        self.to_patch_embedding = nn.ModuleList()
        self.token_mix = nn.ModuleList()
        self.channel_mix = nn.ModuleList()
        inputs, width, side, patch = 3, dim, image_size // patch_size, patch_size
        for depth in depths:
            embedding = nn.Conv2d(inputs, width, patch, patch, bias=False)
            self.to_patch_embedding.append(nn.Sequential(embedding))
            for _ in range(depth):
                token = nn.Sequential(LocalMixing(width), SparseMLP(width, side))
                self.token_mix.append(token)
                channel = nn.LayerNorm(width), FeedForward(width, alpha * width)
                to_last, to_first = Permute(0, 2, 3, 1), Permute(0, 3, 1, 2)
                self.channel_mix.append(nn.Sequential(to_last, *channel, to_first))
            inputs, width, side, patch = width, 2 * width, side // 2, 2
        rates = rising_rates(drop_path_rate, sum(depths))
        self.drop_path = nn.ModuleList(DropPath(rate) for rate in rates)
        self.batch_norm = nn.BatchNorm2d(inputs)
        self.mlp_head = nn.Sequential(nn.Linear(inputs, num_classes))

    def forward(self, x):
        blocks = zip(self.token_mix, self.channel_mix, self.drop_path, strict=True)
        for embedding, depth in zip(self.to_patch_embedding, self.depths, strict=True):
            x = embedding(x)
            for _ in range(depth):
                token, channel, drop_path = next(blocks)
                x = x + drop_path(token(x))
                x = x + drop_path(channel(x))
        return self.mlp_head(self.batch_norm(x).mean((2, 3)))
