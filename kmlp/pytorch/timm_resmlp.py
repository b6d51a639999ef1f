"""timm, its ResMLP and MLP-Mixer, importable where torchvision is not installed."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _Placeholder(type):
    """Type of an empty class whose members are strings, as of an enumeration."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Stub(types.ModuleType):
    """A module in which every public name is an empty class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        placeholder = _Placeholder(name, (), {})
        setattr(self, name, placeholder)
        return placeholder


# What timm cannot be imported without. `torchvision.models` is left out on purpose:
# timm guards that import and must see that it is missing.
_STUBS = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def _is_installed(name):
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


@contextlib.contextmanager
def _torchvision_stubbed_if_missing():
    if _is_installed("torchvision"):
        yield
        return
    for name in _STUBS:
        stub = _Stub(name)
        stub.__path__ = []
        stub.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, stub)
        sys.modules[name] = stub
    try:
        yield
    finally:
        for name in _STUBS:
            del sys.modules[name]


def timm_module(name: str) -> types.ModuleType:
    """Import a module of timm, such as `"timm.scheduler"`.

    Raises:
        ImportError: If timm is not installed.
    """
    if not _is_installed("timm"):
        raise ImportError(f"{name} needs timm: pip install timm.")
    with _torchvision_stubbed_if_missing():
        return importlib.import_module(name)


def timm_resmlp(**kwargs: Any) -> Any:
    """Build `timm.models.mlp_mixer.MlpMixer` as ResMLP.

    Args:
        **kwargs: Arguments of `MlpMixer` (`img_size`, `patch_size`, `embed_dim`,
            `num_blocks`, `mlp_ratio`, `num_classes`, …).

    Returns:
        An `nn.Module` from (N, 3, H, W) images to logits.

    Raises:
        ImportError: If timm is not installed.
    """
    mlp_mixer = timm_module("timm.models.mlp_mixer")
    parts = {"block_layer": mlp_mixer.ResBlock, "norm_layer": mlp_mixer.Affine}
    return mlp_mixer.MlpMixer(**{"mlp_ratio": 4, **parts, **kwargs})


def timm_mlp_mixer(**kwargs: Any) -> Any:
    """Build `timm.models.mlp_mixer.MlpMixer` as MLP-Mixer.

    Args:
        **kwargs: Arguments of `MlpMixer`; `mlp_ratio` is a pair, the hidden positions
            per channel first.

    Returns:
        An `nn.Module` from (N, 3, H, W) images to logits.

    Raises:
        ImportError: If timm is not installed.
    """
    return timm_module("timm.models.mlp_mixer").MlpMixer(**kwargs)
