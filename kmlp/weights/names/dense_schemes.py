"""mmdetection's and mmsegmentation's names, around the authors' of the backbones."""

from kmlp.weights.names.renamings import SCHEMES
from kmlp.weights.names.scheme import Scheme

_FAMILIES = {family.__name__: family for family in SCHEMES}
_CLASSIFIER = ("head/dense/",)
_BINS = (1, 2, 3, 6)  # of UperNet's pooling


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


def semantic_fpn():
    """Semantic FPN's neck and head."""
    head = "decode_head"
    rows = [*_neck(), ("classifier/conv", f"{head}.conv_seg", "conv")]
    for level in range(4):
        for step in range(max(level, 1)):
            # The steps' doublings are numbered among them.
            ours = f"p{level + 2}_step{step}_conv"
            theirs = f"{head}.scale_heads.{level}.{2 * step}"
            rows.append((f"{ours}/conv", f"{theirs}.conv", "conv"))
            rows.append((f"{ours}/norm", f"{theirs}.bn", "norm"))
    return rows


def upernet():
    """UperNet's head and its auxiliary one."""
    head, second = "decode_head", "auxiliary_head"
    convs = {f"pool{b}_conv": f"{head}.psp_modules.{i}.1" for i, b in enumerate(_BINS)}
    convs |= {f"p{i + 2}_lateral": f"{head}.lateral_convs.{i}" for i in range(3)}
    convs |= {f"p{i + 2}_smooth": f"{head}.fpn_convs.{i}" for i in range(3)}
    convs["pool_conv"] = f"{head}.bottleneck"
    convs["fuse"] = f"{head}.fpn_bottleneck"
    convs["auxiliary_conv"] = f"{second}.convs.0"
    rows = [
        ("classifier/conv", f"{head}.conv_seg", "conv"),
        ("auxiliary_classifier/conv", f"{second}.conv_seg", "conv"),
    ]
    for ours, theirs in convs.items():
        rows.append((f"{ours}/conv", f"{theirs}.conv", "conv"))
        rows.append((f"{ours}/norm", f"{theirs}.bn", "norm"))
    return rows


def _neck():
    return [
        ("fpn/lateral{i}/conv", "neck.lateral_convs.{i}.conv", "conv"),
        ("fpn/smooth{i}/conv", "neck.fpn_convs.{i}.conv", "conv"),
    ]


# Class of the dense model, whose module stands above this one -> its rows, and where
# it says something of each class.
DENSE = {
    "RetinaNet": (retinanet, ("class_head/predict/",)),
    "MaskRCNN": (
        mask_rcnn,
        ("box_head/classes/", "box_head/boxes/", "mask_head/masks/"),
    ),
    "SemanticFPN": (semantic_fpn, ("classifier/",)),
    "UperNet": (upernet, ("classifier/", "auxiliary_classifier/")),
}


def schemes_of(model):
    """How others name a model's parameters: schemes, none where nobody does."""
    if type(model) in SCHEMES:
        return SCHEMES[type(model)]
    if type(model).__name__ not in DENSE:
        return ()
    heads, _ = DENSE[type(model).__name__]
    family = _FAMILIES.get(model.get_config()["backbone"]["class_name"])
    return tuple(
        Scheme("OpenMMLab", _around(scheme, heads))
        for scheme in SCHEMES.get(family, ())
    )


def depths_of(model):
    """Blocks per stage of a model, or of a dense model's backbone; `None`: none."""
    if type(model).__name__ in DENSE:
        return model.get_config()["backbone"]["config"].get("depths")
    return getattr(model, "depths", None)


def classifier_of(model):
    """How the paths begin that depend on the classes."""
    return DENSE.get(type(model).__name__, (None, _CLASSIFIER))[1]


def _around(scheme, heads):
    def rows(depths):
        backbone = [
            (ours, f"backbone.{theirs}", kind)
            for ours, theirs, kind in scheme.rows(depths)
            if not ours.startswith("head/")
        ]
        return [*backbone, *heads()]

    return rows
