"""The published networks in PyTorch: what speed and conversions are held against.

Written from the fact sheets. Parameter names are those of the published checkpoints,
so `load_state_dict(state, strict=True)` takes them as they are, less the masks and
indices that some hold beside what was learned, and every operation is
formulated the way the published code runs it (a grouped 1x1 convolution for the
share-set FC, rolls of channel chunks for the shifts, …): timing these networks times
the published PyTorch code. Images are NCHW, outputs are logits. Stochastic depth is
off unless `drop_path_rate` asks for it; initial values are PyTorch's own.

PyTorch is imported when a network is asked for, not before.
"""

import importlib
import importlib.util
from typing import Any

from kmlp.errors import InputError

__all__ = ["FAMILIES", "VARIANTS", "build", "installed"]

# Family -> (module, class).
FAMILIES = {
    "repmlpnet": ("repmlpnet", "RepMLPNet"),
    "resmlp": ("resmlp", "ResMLP"),
    "mlp_mixer": ("resmlp", "MLPMixer"),
    "convmlp": ("pyramids", "ConvMLP"),
    "msmlp": ("pyramids", "MSMLP"),
    "smlpnet": ("pyramids", "SMLPNet"),
    "focal": ("windows", "FocalTransformer"),
    "swin": ("windows", "SwinTransformer"),
}


def _repmlpnet(size, width, num_blocks, share_sets):
    sides = [size // stride for stride in (4, 8, 16, 32)]
    return {
        "channels": [width * 2**stage for stage in range(4)],
        "hs": sides,
        "ws": sides,
        "num_blocks": num_blocks,
        "sharesets_nums": share_sets,
    }


def _variants(*options, **rows):
    return {name: dict(zip(options, row, strict=True)) for name, row in rows.items()}


# Arguments of the published variants, by our names, beside the constructors' defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "repmlpnet_t224": _repmlpnet(224, 64, (2, 2, 6, 2), (1, 4, 16, 128)),
    "repmlpnet_t256": _repmlpnet(256, 64, (2, 2, 6, 2), (1, 4, 16, 128)),
    "repmlpnet_b224": _repmlpnet(224, 96, (2, 2, 12, 2), (1, 4, 32, 128)),
    "repmlpnet_b256": _repmlpnet(256, 96, (2, 2, 12, 2), (1, 4, 32, 128)),
    "repmlpnet_d256": _repmlpnet(256, 80, (2, 2, 18, 2), (1, 4, 16, 128)),
    "repmlpnet_l256": _repmlpnet(256, 96, (2, 2, 18, 2), (1, 4, 32, 256)),
    **_variants(
        *("patch_size", "embed_dim", "depth", "init_scale"),
        resmlp_s12=(16, 384, 12, 0.1),
        resmlp_s24=(16, 384, 24, 1e-5),
        resmlp_s36=(16, 384, 36, 1e-6),
        resmlp_b24=(8, 768, 24, 1e-6),
    ),
    **_variants(
        *("patch_size", "embed_dim", "num_blocks", "tokens_dim"),
        mlp_mixer_b16=(16, 768, 12, 384),
    ),
    **_variants(
        *("n_conv_blocks", "channels", "dims", "blocks", "mlp_ratios"),
        convmlp_s=(2, 64, (128, 256, 512), (2, 4, 2), (2, 2, 2)),
        convmlp_m=(3, 64, (128, 256, 512), (3, 6, 3), (3, 3, 3)),
        convmlp_l=(3, 96, (192, 384, 768), (4, 8, 3), (3, 3, 3)),
    ),
    **_variants(
        *("embed_dim", "depths"),
        msmlp_t=(96, (3, 3, 9, 3)),
        msmlp_s=(96, (3, 3, 27, 3)),
        msmlp_b=(128, (3, 3, 27, 3)),
    ),
    **_variants(
        *("dim", "alpha", "depths"),
        smlpnet_t=(80, 3, (2, 8, 14, 2)),
        smlpnet_t_a2=(80, 2, (2, 8, 14, 2)),
        smlpnet_s=(96, 3, (2, 10, 24, 2)),
        smlpnet_b=(112, 3, (2, 10, 24, 2)),
    ),
    **_variants(
        *("embed_dim", "depths", "num_heads"),
        focal_t=(96, (2, 2, 6, 2), (3, 6, 12, 24)),
        focal_s=(96, (2, 2, 18, 2), (3, 6, 12, 24)),
        focal_b=(128, (2, 2, 18, 2), (4, 8, 16, 32)),
        swin_t=(96, (2, 2, 6, 2), (3, 6, 12, 24)),
        swin_s=(96, (2, 2, 18, 2), (3, 6, 12, 24)),
        swin_b=(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ),
}


def installed() -> bool:
    """Return whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def build(name: str, **overrides: Any) -> Any:
    """Build a network with fresh weights.

    Args:
        name: A variant (a key of `VARIANTS`), or a family (a key of `FAMILIES`), whose
            arguments are then all given by `overrides`.
        **overrides: Arguments of the family's constructor, which bears the published
            constructor's names; they take precedence over the variant's.

    Returns:
        An `nn.Module` from (N, 3, H, W) images to (N, classes) logits.

    Raises:
        ImportError: If PyTorch is not installed.
        InputError: If `name` is neither a variant nor a family.
    """
    if name not in VARIANTS and name not in FAMILIES:
        known = ", ".join([*FAMILIES, *VARIANTS])
        raise InputError(f"name must be one of {known}. Received: {name!r}")
    if not installed():
        raise ImportError(f"The published {name} needs PyTorch: pip install torch.")
    # Names of variants begin with the family's, which may have an underscore too.
    family = max((f for f in FAMILIES if name.startswith(f)), key=len)
    module, kind = FAMILIES[family]
    published = importlib.import_module(f"kmlp.pytorch.published_{module}")
    return getattr(published, kind)(**{**VARIANTS.get(name, {}), **overrides})
