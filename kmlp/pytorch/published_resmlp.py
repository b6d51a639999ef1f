"""ResMLP in PyTorch: the patches are mixed by nn.Linear on transposed tokens."""

from functools import partial

import torch
from torch import Tensor, nn

from kmlp.pytorch.parts import DropPath, Permute, chain, channel_mlp


class Affine(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.beta


def _patch_projection(inputs, width, patch_size):
    """Build the linear map of patches to tokens: (N, C, H, W) -> (N, H/p · W/p, D)."""
    proj = nn.Conv2d(inputs, width, patch_size, patch_size)
    return chain(proj=proj, flat=nn.Flatten(2), to_last=Permute(0, 2, 1))


class ResMLPBlock(nn.Module):
    def __init__(self, width, tokens, init_scale, drop_path_rate):
        super().__init__()
        self.norm1 = Affine(width)
        self.attn = nn.Linear(tokens, tokens)
        self.gamma_1 = nn.Parameter(torch.full((width,), init_scale))
        self.norm2 = Affine(width)
        self.mlp = channel_mlp(width, 4 * width)
        self.gamma_2 = nn.Parameter(torch.full((width,), init_scale))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attn(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(self.gamma_1 * mixed)
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class ResMLP(nn.Module):
    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        init_scale: float = 0.1,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        tokens = (img_size // patch_size) ** 2
        self.patch_embed = _patch_projection(3, embed_dim, patch_size)
        block = (embed_dim, tokens, init_scale, drop_path_rate)
        self.blocks = nn.Sequential(*[ResMLPBlock(*block) for _ in range(depth)])
        self.norm = Affine(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.patch_embed(x)))
        return self.head(x.mean(1))


class MixerBlock(nn.Module):
    def __init__(self, width, tokens, hidden, drop_path_rate):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.norm1 = norm(width)
        self.mlp_tokens = channel_mlp(tokens, hidden[0])
        self.norm2 = norm(width)
        self.mlp_channels = channel_mlp(width, hidden[1])
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class MLPMixer(nn.Module):
    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        num_blocks: int = 12,
        tokens_dim: int = 384,
        mlp_ratio: float = 4,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        tokens = (img_size // patch_size) ** 2
        hidden = tokens_dim, int(mlp_ratio * embed_dim)
        self.stem = _patch_projection(3, embed_dim, patch_size)
        block = (embed_dim, tokens, hidden, drop_path_rate)
        self.blocks = nn.Sequential(*[MixerBlock(*block) for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.stem(x)))
        return self.head(x.mean(1))
