"""kmlp: vision MLPs in Keras 3.

Five families (RepMLPNet, ResMLP, ConvMLP, MS-MLP, sMLPNet) with the hybrids and
ablations of their papers, exact merging of their training-time structure, and export
of what remains.

Importing `kmlp` imports neither Keras nor its backend: a name of this face is imported
when it is first used.
"""

import contextlib
import importlib
import sys

from kmlp.backend import settle_backend
from kmlp.console import quiet
from kmlp.version import __version__

settle_backend()

# Public name -> the module that holds it.
_NAMES = {
    "ConvMLP": "kmlp.models.convmlp",
    "FocalTransformer": "kmlp.models.focal",
    "MSMLP": "kmlp.models.msmlp",
    "MSMLPHybrid": "kmlp.models.hybrid",
    "RepMLPNet": "kmlp.models.repmlpnet",
    "ResMLP": "kmlp.models.resmlp",
    "SMLPNet": "kmlp.models.smlpnet",
    "SwinTransformer": "kmlp.models.swin",
    "create_model": "kmlp.pretrained",
    "list_ablations": "kmlp.models.papers",
    "list_models": "kmlp.models.registry",
    "list_weights": "kmlp.weights.catalogue",
    "load_published": "kmlp.weights",
    "merge": "kmlp.merging",
    "profile": "kmlp.analysis.complexity",
    "resize": "kmlp.weights",
}
_MODULES = (
    "algebra",
    "analysis",
    "callbacks",
    "compression",
    "detection",
    "errors",
    "export",
    "layers",
    "merging",
    "models",
    "plots",
    "preprocessing",
    "pretrained",
    "recipes",
    "segmentation",
    "serving",
    "weights",
)
# The packages whose classes Keras finds by name when it loads a file.
_SERIALIZABLE = ("layers", "models", "detection", "segmentation", "pretrained")

__all__ = ["__version__", *sorted((*_NAMES, *_MODULES))]


def _register():
    """Register every class that a saved model may hold, once Keras is imported.

    While one of our modules is being imported, the others cannot be: what follows then
    registers them, the use of a name of this face at the latest.
    """
    ours = [module for name, module in sys.modules.items() if name.startswith("kmlp.")]
    specs = [getattr(module, "__spec__", None) for module in ours]
    if "keras" not in sys.modules or any(
        getattr(spec, "_initializing", False) for spec in specs
    ):
        return
    # Keras loads its backend now, and TensorFlow's libraries announce themselves.
    with quiet():
        for name in _SERIALIZABLE:
            importlib.import_module(f"kmlp.{name}")
        models = importlib.import_module("kmlp.models")
        for name in models.FAMILIES:
            getattr(models, name)


with contextlib.suppress(ImportError):
    from wrapt import when_imported

    when_imported("keras")(lambda keras: _register())


def __getattr__(name):
    if name not in _NAMES and name not in _MODULES:
        raise AttributeError(f"module 'kmlp' has no attribute {name!r}")
    with quiet():
        module = importlib.import_module(_NAMES.get(name, f"kmlp.{name}"))
        value = getattr(module, name) if name in _NAMES else module
        _register()
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
