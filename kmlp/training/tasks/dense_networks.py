"""The network of a dense recipe: a backbone of an architecture under a head."""

import contextlib
import inspect

from kmlp.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN
from kmlp.detection.retinanet import RetinaNet
from kmlp.errors import InputError
from kmlp.pretrained.creation import create_model
from kmlp.segmentation.segmenter import SemanticFPN
from kmlp.segmentation.upernet import UperNet
from kmlp.training.networks import POLICIES, check, check_names

HEADS = {
    "retinanet": RetinaNet,
    "mask_rcnn": MaskRCNN,
    "cascade_mask_rcnn": CascadeMaskRCNN,
    "semantic_fpn": SemanticFPN,
    "upernet": UperNet,
}
_FOLLOWING = {
    "backbone": "pass --arch",
    "num_classes": "it follows from the data",
    "name": "it is the head's",
    "dtype": "pass --precision",
}


def build(arch, num_classes, recipe, *, dtype=None):
    """A detector or segmenter with fresh weights.

    Args:
        arch: of the backbone, of `kmlp.list_models()`.
        num_classes: of the data.
        recipe: `DenseRecipe`.
        dtype: precision, `"float32"`, `"bfloat16"`, `"float16"`; `None`: Keras' own.

    Raises:
        InputError: an unknown name, arguments that do not fit, or a backbone without
            the levels that the head takes.
    """
    known = inspect.signature(HEADS[recipe.head]).parameters
    check_names(recipe.head, "head_arguments", recipe.head_arguments, known, _FOLLOWING)
    policy = POLICIES.get(dtype, dtype)
    with _explained(arch, recipe):
        return HEADS[recipe.head](
            backbone_of(arch, recipe, dtype=dtype),
            num_classes,
            dtype=policy,
            **recipe.head_arguments,
        )


def backbone_of(arch, recipe, *, dtype=None, weights=None):
    """The backbone alone.

    Args:
        arch, recipe, dtype: as in `build`.
        weights: as `kmlp.create_model` takes them; `None`: fresh ones.

    Raises:
        InputError: an unknown name, weights or arguments that do not fit.
    """
    check(arch, recipe.model)
    arguments = dict(recipe.model)
    if recipe.drop_path is not None:
        arguments["drop_path_rate"] = recipe.drop_path
    with _explained(arch, recipe):
        return create_model(
            arch,
            input_shape=(*recipe.image_size, 3),
            weights=weights,
            # Blocks that the recipe names are those that the weights were trained on.
            resolution="partition" if "block_size" in arguments else "interpolate",
            include_top=False,
            dtype=POLICIES.get(dtype, dtype),
            **arguments,
        )


@contextlib.contextmanager
def _explained(arch, recipe):
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        size = "x".join(map(str, recipe.image_size))
        raise InputError(
            f"{recipe.head} over {arch} cannot be built for {size}: {error}"
        ) from error
