"""The published variants of the families, as data that needs no Keras."""

from typing import Any

_DEEP = {"depths": (2, 2, 2, 18, 2)}
# Arguments that the hybrids with Swin and with Focal transformers share.
_HYBRIDS = {
    "t": {},
    "s": {**_DEEP, "drop_path_rate": 0.3},
    "b": {**_DEEP, "width": 128, "heads": (8, 16, 32), "drop_path_rate": 0.5},
}
# The same of these transformers alone.
_TRANSFORMERS = {
    "t": {},
    "s": {"depths": (2, 2, 18, 2), "drop_path_rate": 0.3},
    "b": {
        "width": 128,
        "depths": (2, 2, 18, 2),
        "heads": (4, 8, 16, 32),
        "drop_path_rate": 0.5,
    },
}
_REPMLPNET_B = {
    "depths": (2, 2, 12, 2),
    "widths": (96, 192, 384, 768),
    "share_sets": (1, 4, 32, 128),
}
_AT_256 = {"input_shape": (256, 256, 3)}
# The CIFAR-100 study of RepMLPNet's Table 4.
_CIFAR = {"patch_size": 2, "input_shape": (32, 32, 3), "num_classes": 100}

# Family -> name of a variant -> arguments that differ from the class's defaults.
FAMILIES: dict[str, dict[str, dict[str, Any]]] = {
    "ConvMLP": {
        "convmlp_s": {},
        "convmlp_m": {"conv_blocks": 3, "depths": (3, 6, 3), "mlp_ratios": (3, 3, 3)},
        "convmlp_l": {
            "stem_width": 96,
            "conv_blocks": 3,
            "widths": (192, 384, 768),
            "depths": (4, 8, 3),
            "mlp_ratios": (3, 3, 3),
        },
    },
    "FocalTransformer": {f"focal_{size}": {**a} for size, a in _TRANSFORMERS.items()},
    "MSMLP": {
        "msmlp_t": {},
        "msmlp_s": {"depths": (3, 3, 27, 3), "drop_path_rate": 0.3},
        "msmlp_b": {"width": 128, "depths": (3, 3, 27, 3), "drop_path_rate": 0.5},
    },
    "MSMLPHybrid": {
        f"msmlp_{attention}_{size}": {"attention": attention, **arguments}
        for attention in ("swin", "focal")
        for size, arguments in _HYBRIDS.items()
    },
    "RepMLPNet": {
        "repmlpnet_t224": {},
        "repmlpnet_t256": {**_AT_256},
        "repmlpnet_b224": {**_REPMLPNET_B},
        "repmlpnet_b256": {**_REPMLPNET_B, **_AT_256},
        "repmlpnet_d256": {
            "depths": (2, 2, 18, 2),
            "widths": (80, 160, 320, 640),
            "share_sets": (1, 4, 16, 128),
            **_AT_256,
        },
        "repmlpnet_l256": {
            **_REPMLPNET_B,
            "depths": (2, 2, 18, 2),
            "share_sets": (1, 4, 32, 256),
            **_AT_256,
        },
        "repmlpnet_cifar": {
            "depths": (6, 6),
            "widths": (128, 256),
            "share_sets": (8, 32),
            **_CIFAR,
        },
    },
    "ResMLP": {
        "resmlp_s12": {},
        "resmlp_s24": {"depth": 24, "layer_scale": 1e-5},
        "resmlp_s36": {"depth": 36, "layer_scale": 1e-6},
        "resmlp_b24": {"depth": 24, "width": 768, "patch_size": 8, "layer_scale": 1e-6},
        "resmlp_12_cifar": {"width": 256, **_CIFAR},
        # MLP-Mixer-B/16, the papers' baseline, from the same parts.
        "mlp_mixer_b16": {
            "width": 768,
            "layer_scale": None,
            "norm": "layer",
            "mixing": "mlp",
            "mixing_width": 384,
            "epsilon": 1e-6,
        },
    },
    "SMLPNet": {
        "smlpnet_t": {},
        "smlpnet_t_a2": {"mlp_ratio": 2},
        "smlpnet_s": {"width": 96, "depths": (2, 10, 24, 2), "drop_path_rate": 0.2},
        "smlpnet_b": {"width": 112, "depths": (2, 10, 24, 2), "drop_path_rate": 0.3},
        # No paper's: for CIFAR-10 and two CPU cores, with local branches to merge.
        "smlpnet_xs": {
            "width": 48,
            "depths": (3, 3),
            "patch_size": 2,
            "local_kernels": (3,),
            "input_shape": (32, 32, 3),
            "num_classes": 10,
        },
    },
    "SwinTransformer": {f"swin_{size}": {**a} for size, a in _TRANSFORMERS.items()},
}
