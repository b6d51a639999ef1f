"""`merge`: a trained model in, its inference form out."""

from kmlp.errors import InputError
from kmlp.rewriting import rewrite


def merge(model):
    """The equivalent inference model of any model that holds kmlp layers.

    Locality branches go into their FC kernels, norms, scales and shifts into
    their linear neighbours. The walk knows one protocol: a layer with a method
    `merged()` returns its own inference form; all other layers are copied. The
    model is left untouched; merging a merged model changes nothing.

    Args:
        model: a built `keras.Model` (functional, `Sequential` or subclassed) or
            `keras.Layer`; nested models and layers are walked too.

    Returns:
        A new model with the same inputs, outputs, layer names and dtype policy;
        `pyramid_outputs`, `preprocessing` and `class_names` are kept where the
        model has them.

    Raises:
        InputError: the model is not built.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3.
    """
    if not model.built:
        raise InputError(
            "merge() needs a built model: call it on data or build() it first. "
            f"Received: {model.name!r}, which has no weights yet"
        )
    return rewrite(model, _inference_form)


def _inference_form(layer):
    return layer.merged() if hasattr(layer, "merged") else None
