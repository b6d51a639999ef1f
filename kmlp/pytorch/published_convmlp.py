"""ConvMLP in PyTorch: Conv-MLP stages hold NHWC maps, permuted for each convolution."""

from torch import nn

from kmlp.pytorch.parts import ChannelMLP, DropPath, rising_rates


def _conv_bn_relu(*layers):
    """A flat Sequential; every layer is (inputs, outputs, kernel, stride)."""
    parts = []
    for inputs, outputs, k, stride in layers:
        conv = nn.Conv2d(inputs, outputs, k, stride, padding=k // 2, bias=False)
        parts += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts)


class ConvTokenizer(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.block = _conv_bn_relu(
            (3, half, 3, 2), (half, half, 3, 1), (half, width, 3, 1)
        )
        self.block.append(nn.MaxPool2d(3, 2, padding=1))

    def forward(self, x):
        return self.block(x)


class ConvStage(nn.Module):
    def __init__(self, width, hidden, depth):
        super().__init__()
        layers = (width, hidden, 1, 1), (hidden, hidden, 3, 1), (hidden, width, 1, 1)
        self.conv_blocks = nn.ModuleList(_conv_bn_relu(*layers) for _ in range(depth))
        self.downsample = nn.Conv2d(width, hidden, 3, 2, padding=1)

    def forward(self, x):
        for block in self.conv_blocks:
            x = x + block(x)
        return self.downsample(x)


class ConvDownsample(nn.Module):
    def __init__(self, width, wider):
        super().__init__()
        self.downsample = nn.Conv2d(width, wider, 3, 2, padding=1)

    def forward(self, x):
        return self.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvMLPBlock(nn.Module):
    def __init__(self, width, ratio, drop_path_rate):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.channel_mlp1 = ChannelMLP(width, int(width * ratio))
        self.connect_norm = nn.LayerNorm(width)
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.channel_mlp2 = ChannelMLP(width, int(width * ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x):  # NHWC
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))


class ConvMLPStage(nn.Module):
    def __init__(self, width, wider, depth, ratio, drop_path_rate):
        super().__init__()
        rates = rising_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(*[ConvMLPBlock(width, ratio, r) for r in rates])
        self.downsample_mlp = ConvDownsample(width, wider) if wider else nn.Identity()

    def forward(self, x):
        return self.downsample_mlp(self.blocks(x))


class ConvMLP(nn.Module):
    def __init__(
        self,
        blocks,
        dims,
        mlp_ratios,
        channels=64,
        n_conv_blocks=2,
        num_classes=1000,
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.tokenizer = ConvTokenizer(channels)
        self.conv_stages = ConvStage(channels, dims[0], n_conv_blocks)
        plan = zip(dims, [*dims[1:], None], blocks, mlp_ratios, strict=True)
        stages = [ConvMLPStage(*stage, drop_path_rate) for stage in plan]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)

    def forward(self, x):
        x = self.conv_stages(self.tokenizer(x)).permute(0, 2, 3, 1)
        x = self.stages(x).flatten(1, 2)  # (N, H, W, C) -> (N, H·W, C)
        return self.head(self.norm(x).mean(1))
