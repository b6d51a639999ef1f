"""MLP-Mixer in PyTorch, under timm's names."""

from functools import partial

from torch import nn

from kmlp.pytorch.parts import ChannelMLP, DropPath
from kmlp.pytorch.published_resmlp import PatchProjection


class MixerBlock(nn.Module):
    def __init__(self, width, tokens, hidden, drop_path_rate):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.norm1 = norm(width)
        self.mlp_tokens = ChannelMLP(tokens, hidden[0])
        self.norm2 = norm(width)
        self.mlp_channels = ChannelMLP(width, hidden[1])
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x):
        mixed = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class MLPMixer(nn.Module):
    def __init__(
        self,
        img_size=224,
        patch_size=16,
        embed_dim=768,
        num_blocks=12,
        tokens_dim=384,
        mlp_ratio=4,
        num_classes=1000,
        drop_path_rate=0.0,
    ):
        super().__init__()
        tokens = (img_size // patch_size) ** 2
        hidden = tokens_dim, int(mlp_ratio * embed_dim)
        self.stem = PatchProjection(3, embed_dim, patch_size)
        block = (embed_dim, tokens, hidden, drop_path_rate)
        self.blocks = nn.Sequential(*[MixerBlock(*block) for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x):
        x = self.norm(self.blocks(self.stem(x)))
        return self.head(x.mean(1))
