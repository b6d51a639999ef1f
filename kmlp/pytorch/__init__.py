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

from kmlp.errors import InputError
from kmlp.pytorch.published_variants import VARIANTS

__all__ = ["FAMILIES", "VARIANTS", "build", "installed"]

# Family -> (module, class).
FAMILIES = {
    "repmlpnet": ("repmlpnet", "RepMLPNet"),
    "resmlp": ("resmlp", "ResMLP"),
    "mlp_mixer": ("resmlp", "MLPMixer"),
    "convmlp": ("convmlp", "ConvMLP"),
    "msmlp": ("msmlp", "MSMLP"),
    "smlpnet": ("smlpnet", "SMLPNet"),
    "focal": ("focal", "FocalTransformer"),
    "swin": ("swin", "SwinTransformer"),
}


def installed():
    """Whether PyTorch is there."""
    return importlib.util.find_spec("torch") is not None


def build(name, **overrides):
    """Builds a network with fresh weights.

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
    module, family = FAMILIES[family]
    module = importlib.import_module(f"kmlp.pytorch.published_{module}")
    return getattr(module, family)(**{**VARIANTS.get(name, {}), **overrides})
