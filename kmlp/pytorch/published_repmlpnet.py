"""RepMLPNet in PyTorch, in its training and its deploy form.

Several tiles per map: each is transformed on its own and the gate pools over the whole
map. The published inverse partition scrambles tiles there; with one tile it agrees.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kmlp.pytorch.parts import chain


def _conv_bn(inputs, outputs, kernel, relu=False, **options):
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
    after = {"relu": nn.ReLU()} if relu else {}
    return chain(conv=conv, bn=nn.BatchNorm2d(outputs), **after)


def _global_perceptron(channels):
    return chain(
        pool=nn.AdaptiveAvgPool2d(1),  # (N, C, H, W) -> (N, C, 1, 1)
        fc1=nn.Conv2d(channels, channels // 4, 1),
        act=nn.ReLU(),
        fc2=nn.Conv2d(channels // 4, channels, 1),
        gate=nn.Sigmoid(),
    )


class RepMLPBlock(nn.Module):
    def __init__(self, channels, h, w, share_sets, local_kernels, deploy):
        super().__init__()
        self.map_shape = (share_sets, h, w)
        rows = share_sets * h * w
        self.gp = _global_perceptron(channels)
        self.fc3 = nn.Conv2d(rows, rows, 1, groups=share_sets, bias=deploy)
        self.fc3_bn = nn.Identity() if deploy else nn.BatchNorm2d(share_sets)
        self.local_kernels = () if deploy else local_kernels
        for k in self.local_kernels:
            local = {"padding": k // 2, "groups": share_sets}
            branch = _conv_bn(share_sets, share_sets, k, **local)
            self.add_module(f"repconv{k}", branch)

    def forward(self, x: Tensor) -> Tensor:
        (n, c, height, width), (s, h, w) = x.shape, self.map_shape
        down, across = height // h, width // w
        # (N, C, H, W) -> (N·tiles·C/S, S, h, w)
        tiles = x.reshape(n, c, down, h, across, w).permute(0, 2, 4, 1, 3, 5)
        maps = tiles.reshape(-1, s, h, w)
        # -> (N·tiles·C/S, S·h·w, 1, 1) -> (N·tiles·C/S, S, h, w)
        mixed = self.fc3(maps.reshape(-1, s * h * w, 1, 1)).reshape(-1, s, h, w)
        mixed = self.fc3_bn(mixed)
        for k in self.local_kernels:
            mixed = mixed + self.get_submodule(f"repconv{k}")(maps)
        mixed = mixed.reshape(n, down, across, c, h, w).permute(0, 3, 1, 4, 2, 5)
        return mixed.reshape(x.shape) * self.gp(x)


def _ffn(channels):
    expand, project = (
        _conv_bn(channels, 4 * channels, 1),
        _conv_bn(4 * channels, channels, 1),
    )
    return chain(ffn_fc1=expand, act=nn.GELU(), ffn_fc2=project)


class RepMLPUnit(nn.Module):
    def __init__(self, channels, *block):
        super().__init__()
        self.prebn1 = nn.BatchNorm2d(channels)
        self.repmlp_block = RepMLPBlock(channels, *block)
        self.prebn2 = nn.BatchNorm2d(channels)
        self.ffn_block = _ffn(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.repmlp_block(self.prebn1(x))
        return x + self.ffn_block(self.prebn2(x))


class RepMLPNet(nn.Module):
    """`deploy=True` is the form after Locality Injection (the FFN keeps its BN)."""

    def __init__(
        self,
        channels: Sequence[int],
        hs: Sequence[int],
        ws: Sequence[int],
        num_blocks: Sequence[int],
        sharesets_nums: Sequence[int],
        reparam_conv_k: Sequence[int] = (1, 3),
        num_class: int = 1000,
        patch_size: int = 4,
        deploy: bool = False,
    ):
        super().__init__()
        self.conv_embedding = _conv_bn(
            3, channels[0], patch_size, relu=True, stride=patch_size
        )
        self.stages = nn.ModuleList()
        for c, h, w, depth, s in zip(
            channels, hs, ws, num_blocks, sharesets_nums, strict=True
        ):
            block = (h, w, s, reparam_conv_k, deploy)
            units = [RepMLPUnit(c, *block) for _ in range(depth)]
            self.stages.append(nn.Sequential(*units))
        self.embeds = nn.ModuleList(
            _conv_bn(c, wider, 2, relu=True, stride=2)
            for c, wider in itertools.pairwise(channels)
        )
        self.head_norm = nn.BatchNorm2d(channels[-1])
        self.head = nn.Linear(channels[-1], num_class)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](self.conv_embedding(x))
        for embed, stage in zip(self.embeds, self.stages[1:], strict=True):
            x = stage(embed(x))
        x = F.adaptive_avg_pool2d(self.head_norm(x), 1)
        return self.head(x.flatten(1))
