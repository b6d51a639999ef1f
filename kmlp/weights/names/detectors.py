"""mmdetection's names of detectors, around the authors' names of their backbones."""

from kmlp.weights.names.scheme import Scheme
from kmlp.weights.names.tables import SCHEMES

_FAMILIES = {family.__name__: family for family in SCHEMES}
_CLASSIFIER = ("head/dense/",)


def retinanet():
    """RetinaNet's neck and head."""
    head = "bbox_head"
    return [
        *_neck(),
        # Levels beyond the coarsest go on counting.
        ("fpn/extra0/conv", "neck.fpn_convs.3.conv", "conv"),
        ("fpn/extra1/conv", "neck.fpn_convs.4.conv", "conv"),
        ("class_head/conv{i}/conv", f"{head}.cls_convs.{{i}}.conv", "conv"),
        ("class_head/predict", f"{head}.retina_cls", "conv"),
        ("box_head/conv{i}/conv", f"{head}.reg_convs.{{i}}.conv", "conv"),
        ("box_head/predict", f"{head}.retina_reg", "conv"),
    ]


def mask_rcnn():
    """Mask R-CNN's neck, proposal network and heads; Faster R-CNN's are among them."""
    boxes, masks = "roi_head.bbox_head", "roi_head.mask_head"
    return [
        *_neck(),
        ("rpn/conv/conv", "rpn_head.rpn_conv", "conv"),
        ("rpn/objectness/conv", "rpn_head.rpn_cls", "conv"),
        ("rpn/boxes/conv", "rpn_head.rpn_reg", "conv"),
        ("box_head/fc0", f"{boxes}.shared_fcs.0", "region"),
        ("box_head/fc1", f"{boxes}.shared_fcs.1", "dense"),
        ("box_head/classes", f"{boxes}.fc_cls", "dense"),
        ("box_head/boxes", f"{boxes}.fc_reg", "dense"),
        ("mask_head/conv{i}/conv", f"{masks}.convs.{{i}}.conv", "conv"),
        ("mask_head/upsample", f"{masks}.upsample", "conv"),
        ("mask_head/masks/conv", f"{masks}.conv_logits", "conv"),
    ]


def _neck():
    return [
        ("fpn/lateral{i}/conv", "neck.lateral_convs.{i}.conv", "conv"),
        ("fpn/smooth{i}/conv", "neck.fpn_convs.{i}.conv", "conv"),
    ]


# Class of the detector, whose module stands above this one -> its rows, and where it
# says something of each class.
DETECTORS = {
    "RetinaNet": (retinanet, ("class_head/predict/",)),
    "MaskRCNN": (
        mask_rcnn,
        ("box_head/classes/", "box_head/boxes/", "mask_head/masks/"),
    ),
}


def schemes_of(model):
    """How others name a model's parameters: schemes, none where nobody does."""
    if type(model) in SCHEMES:
        return SCHEMES[type(model)]
    if type(model).__name__ not in DETECTORS:
        return ()
    heads, _ = DETECTORS[type(model).__name__]
    family = _FAMILIES.get(model.get_config()["backbone"]["class_name"])
    return tuple(
        Scheme("mmdetection", _around(scheme, heads))
        for scheme in SCHEMES.get(family, ())
    )


def depths_of(model):
    """Blocks per stage of a model or of a detector's backbone, `None` without any."""
    if type(model).__name__ in DETECTORS:
        return model.get_config()["backbone"]["config"].get("depths")
    return getattr(model, "depths", None)


def classifier_of(model):
    """How the paths begin that depend on the classes."""
    return DETECTORS.get(type(model).__name__, (None, _CLASSIFIER))[1]


def _around(scheme, heads):
    def rows(depths):
        backbone = [
            (ours, f"backbone.{theirs}", kind)
            for ours, theirs, kind in scheme.rows(depths)
            if not ours.startswith("head/")
        ]
        return [*backbone, *heads()]

    return rows
