"""ConvMLP, MS-MLP and sMLPNet in PyTorch: MLPs over maps that become smaller.

ConvMLP holds NHWC maps, permuted for each convolution. MS-MLP rolls chunks of channels
and convolves them depthwise, on two paths. sMLPNet makes each axis in turn the channels
of a 1x1 convolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmlp.pytorch.parts import (
    DropPath,
    PatchEmbedding,
    Permute,
    chain,
    channel_mlp,
    rising_rates,
    stage,
)


def _conv_bn_relu(*layers):
    """Build a flat Sequential; every layer is (inputs, outputs, kernel, stride)."""
    parts = []
    for inputs, outputs, k, stride in layers:
        conv = nn.Conv2d(inputs, outputs, k, stride, padding=k // 2, bias=False)
        parts += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts)


class ConvStage(nn.Module):
    def __init__(self, width: int, hidden: int, depth: int):
        super().__init__()
        layers = (width, hidden, 1, 1), (hidden, hidden, 3, 1), (hidden, width, 1, 1)
        self.conv_blocks = nn.ModuleList(_conv_bn_relu(*layers) for _ in range(depth))
        self.downsample = nn.Conv2d(width, hidden, 3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.conv_blocks:
            x = x + block(x)
        return self.downsample(x)


class ConvMLPBlock(nn.Module):
    def __init__(self, width: int, ratio: float, drop_path_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.channel_mlp1 = channel_mlp(width, int(width * ratio))
        self.connect_norm = nn.LayerNorm(width)
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.channel_mlp2 = channel_mlp(width, int(width * ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:  # NHWC
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))


def _conv_mlp_stage(width, wider, ratio, rates):
    blocks = nn.Sequential(*[ConvMLPBlock(width, ratio, rate) for rate in rates])
    if wider is None:
        return chain(blocks=blocks, downsample_mlp=nn.Identity())
    down = chain(
        to_first=Permute(0, 3, 1, 2),
        downsample=nn.Conv2d(width, wider, 3, 2, padding=1),
        to_last=Permute(0, 2, 3, 1),
    )
    return chain(blocks=blocks, downsample_mlp=down)


class ConvMLP(nn.Module):
    def __init__(
        self,
        blocks: Sequence[int],
        dims: Sequence[int],
        mlp_ratios: Sequence[float],
        channels: int = 64,
        n_conv_blocks: int = 2,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        half = channels // 2
        convs = (3, half, 3, 2), (half, half, 3, 1), (half, channels, 3, 1)
        block = _conv_bn_relu(*convs).append(nn.MaxPool2d(3, 2, padding=1))
        self.tokenizer = chain(block=block)
        self.conv_stages = ConvStage(channels, dims[0], n_conv_blocks)
        # The authors' rates rise within each stage.
        rates = [rising_rates(drop_path_rate, [depth])[0] for depth in blocks]
        plan = zip(dims, [*dims[1:], None], mlp_ratios, rates, strict=True)
        self.stages = nn.Sequential(*[_conv_mlp_stage(*stage) for stage in plan])
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_stages(self.tokenizer(x)).permute(0, 2, 3, 1)
        x = self.stages(x).flatten(1, 2)  # (N, H, W, C) -> (N, H·W, C)
        return self.head(self.norm(x).mean(1))


SHIFTS = (-2, -1, 0, 1, 2)
REGIONS = (1, 1, 3, 5, 7), (1, 3, 3, 5, 7), (1, 5, 5, 5, 7), (1, 7, 7, 7, 7)


class MapEmbedding(PatchEmbedding):
    """Patch embedding with an NCHW map as its output."""

    def __init__(self, inputs: int, width: int, patch_size: int):
        super().__init__(inputs, width, patch_size, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).permute(0, 3, 1, 2).contiguous()


class MixShiftBlock(nn.Module):
    def __init__(self, width: int, regions: Sequence[int], drop_path_rate: float):
        super().__init__()
        groups = [len(chunk) for chunk in torch.arange(width).chunk(len(SHIFTS))]

        def _depthwise_convs():
            return nn.ModuleList(
                nn.Conv2d(c, c, r, padding=r // 2, groups=c)
                for c, r in zip(groups, regions, strict=True)
            )

        self.dwconv_lr = _depthwise_convs()
        self.dwconv_td = _depthwise_convs()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.drop_path = DropPath(drop_path_rate)

    def mix(self, x: Tensor, convs: nn.ModuleList, axis: int) -> Tensor:
        groups = zip(x.chunk(len(SHIFTS), dim=1), convs, SHIFTS, strict=True)
        mixed = [conv(chunk.roll(shift, axis)) for chunk, conv, shift in groups]
        return torch.cat(mixed, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x, self.dwconv_lr, 3) + self.mix(x, self.dwconv_td, 2)
        # (N, C, H, W) -> (N, H, W, C) -> (N, C, H, W)
        mixed = self.norm(mixed.permute(0, 2, 3, 1))
        mixed = self.gamma * self.pwconv2(self.act(self.pwconv1(mixed)))
        return x + self.drop_path(mixed.permute(0, 3, 1, 2))


class MSMLP(nn.Module):
    """`img_size` is there because published configurations name it: any size works."""

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        mix_size: Sequence[Sequence[int]] = REGIONS,
        img_size: int = 224,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.patch_embed = MapEmbedding(3, embed_dim, 4)
        self.layers = nn.Sequential()
        rates = rising_rates(drop_path_rate, depths)
        for i, (own, regions) in enumerate(zip(rates, mix_size, strict=True)):
            width = embed_dim * 2**i
            blocks = [MixShiftBlock(width, regions, rate) for rate in own]
            last = i == len(depths) - 1
            down = None if last else MapEmbedding(width, 2 * width, 2)
            self.layers.append(stage(blocks, down))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.patch_embed(x))
        return self.head(self.norm(self.avgpool(x).flatten(1)))


def _local_mixing(width):
    """Build BN, GELU and a depthwise 3x3 convolution."""
    conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    parts = chain(BN=nn.BatchNorm2d(width), act=nn.GELU(), Conv=conv)
    return chain(conv_merge=parts)


class SparseMLP(nn.Module):
    """BN, GELU, then identity, width and height mixing side by side, fused.

    The published names are crossed: `proj_h` mixes along the width, `proh_w` along the
    height.
    """

    def __init__(self, width: int, side: int):
        super().__init__()
        self.BN = nn.BatchNorm2d(width)
        self.proj_h = nn.Conv2d(side, side, 1)
        self.proh_w = nn.Conv2d(side, side, 1)
        self.fuse = nn.Conv2d(3 * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.BN(x))
        # (N, C, H, W) -> (N, W, C, H) -> (N, C, H, W)
        along_width = self.proj_h(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # (N, C, H, W) -> (N, H, C, W) -> (N, C, H, W)
        along_height = self.proh_w(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        return self.fuse(torch.cat([x, along_width, along_height], dim=1))


def _feed_forward(width, hidden):
    # The two Dropouts never drop; they keep the published indices 0 and 3.
    expand = nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0)
    project = nn.Linear(hidden, width), nn.Dropout(0.0)
    return chain(net=nn.Sequential(*expand, *project))


class SMLPNet(nn.Module):
    """Square images only, like the published network."""

    def __init__(
        self,
        dim: int,
        alpha: int,
        depths: Sequence[int],
        image_size: int = 224,
        num_classes: int = 1000,
        patch_size: int = 4,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.depths = depths
        self.to_patch_embedding = nn.ModuleList()
        self.token_mix = nn.ModuleList()
        self.channel_mix = nn.ModuleList()
        self.drop_path = nn.ModuleList()
        inputs, width, side, patch = 3, dim, image_size // patch_size, patch_size
        for rates in rising_rates(drop_path_rate, depths):
            embedding = nn.Conv2d(inputs, width, patch, patch, bias=False)
            self.to_patch_embedding.append(nn.Sequential(embedding))
            for rate in rates:
                token = nn.Sequential(_local_mixing(width), SparseMLP(width, side))
                self.token_mix.append(token)
                channel = nn.LayerNorm(width), _feed_forward(width, alpha * width)
                to_last, to_first = Permute(0, 2, 3, 1), Permute(0, 3, 1, 2)
                self.channel_mix.append(nn.Sequential(to_last, *channel, to_first))
                self.drop_path.append(DropPath(rate))
            inputs, width, side, patch = width, 2 * width, side // 2, 2
        self.batch_norm = nn.BatchNorm2d(inputs)
        self.mlp_head = nn.Sequential(nn.Linear(inputs, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        blocks = zip(self.token_mix, self.channel_mix, self.drop_path, strict=True)
        for embedding, depth in zip(self.to_patch_embedding, self.depths, strict=True):
            x = embedding(x)
            for _ in range(depth):
                token, channel, drop_path = next(blocks)
                x = x + drop_path(token(x))
                x = x + drop_path(channel(x))
        return self.mlp_head(self.batch_norm(x).mean((2, 3)))
