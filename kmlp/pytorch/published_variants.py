"""Arguments of the published variants, by our names."""


def _repmlpnet(size, width, num_blocks, share_sets):
    sides = [size // stride for stride in (4, 8, 16, 32)]
    return {
        "channels": [width * 2**stage for stage in range(4)],
        "hs": sides,
        "ws": sides,
        "num_blocks": num_blocks,
        "sharesets_nums": share_sets,
        "reparam_conv_k": (1, 3),
    }


def _resmlp(patch_size, embed_dim, depth, init_scale):
    return {
        "img_size": 224,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depth": depth,
        "init_scale": init_scale,
    }


def _convmlp(n_conv_blocks, channels, dims, blocks, ratio):
    return {
        "blocks": blocks,
        "dims": dims,
        "mlp_ratios": [ratio] * 3,
        "channels": channels,
        "n_conv_blocks": n_conv_blocks,
    }


def _msmlp(embed_dim, depths):
    regions = (1, 1, 3, 5, 7), (1, 3, 3, 5, 7), (1, 5, 5, 5, 7), (1, 7, 7, 7, 7)
    return {
        "img_size": 224,
        "embed_dim": embed_dim,
        "depths": depths,
        "mix_size": regions,
    }


def _smlpnet(dim, alpha, depths):
    return {
        "dim": dim,
        "alpha": alpha,
        "depths": depths,
        "image_size": 224,
        "patch_size": 4,
    }


def _swin(embed_dim, depths, heads):
    return {
        "img_size": 224,
        "patch_size": 4,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": [heads * 2**stage for stage in range(4)],
        "window_size": 7,
    }


def _focal(embed_dim, depths, num_heads):
    return {
        "img_size": 224,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": num_heads,
    }


VARIANTS = {
    "repmlpnet_t224": _repmlpnet(224, 64, (2, 2, 6, 2), (1, 4, 16, 128)),
    "repmlpnet_t256": _repmlpnet(256, 64, (2, 2, 6, 2), (1, 4, 16, 128)),
    "repmlpnet_b224": _repmlpnet(224, 96, (2, 2, 12, 2), (1, 4, 32, 128)),
    "repmlpnet_b256": _repmlpnet(256, 96, (2, 2, 12, 2), (1, 4, 32, 128)),
    "repmlpnet_d256": _repmlpnet(256, 80, (2, 2, 18, 2), (1, 4, 16, 128)),
    "repmlpnet_l256": _repmlpnet(256, 96, (2, 2, 18, 2), (1, 4, 32, 256)),
    "resmlp_s12": _resmlp(16, 384, 12, 0.1),
    "resmlp_s24": _resmlp(16, 384, 24, 1e-5),
    "resmlp_s36": _resmlp(16, 384, 36, 1e-6),
    "resmlp_b24": _resmlp(8, 768, 24, 1e-6),
    "mlp_mixer_b16": {
        "img_size": 224,
        "patch_size": 16,
        "embed_dim": 768,
        "num_blocks": 12,
        "tokens_dim": 384,
    },
    "convmlp_s": _convmlp(2, 64, (128, 256, 512), (2, 4, 2), 2),
    "convmlp_m": _convmlp(3, 64, (128, 256, 512), (3, 6, 3), 3),
    "convmlp_l": _convmlp(3, 96, (192, 384, 768), (4, 8, 3), 3),
    "msmlp_t": _msmlp(96, (3, 3, 9, 3)),
    "msmlp_s": _msmlp(96, (3, 3, 27, 3)),
    "msmlp_b": _msmlp(128, (3, 3, 27, 3)),
    "smlpnet_t": _smlpnet(80, 3, (2, 8, 14, 2)),
    "smlpnet_t_a2": _smlpnet(80, 2, (2, 8, 14, 2)),
    "smlpnet_s": _smlpnet(96, 3, (2, 10, 24, 2)),
    "smlpnet_b": _smlpnet(112, 3, (2, 10, 24, 2)),
    "focal_t": _focal(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "focal_s": _focal(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "focal_b": _focal(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_t": _swin(96, (2, 2, 6, 2), 3),
    "swin_s": _swin(96, (2, 2, 18, 2), 3),
    "swin_b": _swin(128, (2, 2, 18, 2), 4),
}
