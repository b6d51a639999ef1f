"""Names of published parameters beside ours, as tables.

A table's row `(our layer, published module, kind)` holds for all numbers in place of
its fields `{…}`; kinds are those of `kmlp.weights.scheme`. A family can have several
naming schemes. mmdetection's and mmsegmentation's names stand around the authors' of
the backbones.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.models.convmlp import ConvMLP
from kmlp.models.focal import FocalTransformer
from kmlp.models.msmlp import MSMLP
from kmlp.models.repmlpnet import RepMLPNet
from kmlp.models.resmlp import ResMLP
from kmlp.models.smlpnet import SMLPNet
from kmlp.models.swin import SwinTransformer
from kmlp.weights.scheme import Row, Scheme

_UNIT = "stage{s}_block{b}"
_BLOCK = "layers.{s}.blocks.{b}"  # of Swin and those who began with its code
_CLASSIFIER = ("head/dense/",)
_BINS = (1, 2, 3, 6)  # of UperNet's pooling


def _repmlpnet(*, stem, embed, block, gate, norm, head):
    perceptron = f"{_UNIT}_channel_perceptron"
    inner = f"{block}.repmlp_block"
    return [
        ("stem/dense", stem[0], "patch"),
        ("stem/norm", stem[1], "norm"),
        ("embed{e}/dense", f"{embed}.conv", "patch"),
        ("embed{e}/norm", f"{embed}.bn", "norm"),
        (f"{_UNIT}_norm", f"{block}.{norm}1", "norm"),
        (f"{_UNIT}_global_perceptron/fc{{n}}", f"{inner}.{gate}", "dense"),
        (perceptron, f"{inner}.fc3", "positions"),
        (f"{perceptron}/norm", f"{inner}.fc3_bn", "norm"),
        (f"{perceptron}/local_{{k}}x{{k}}", f"{inner}.repconv{{k}}.conv", "local"),
        (f"{perceptron}/local_{{k}}x{{k}}/norm", f"{inner}.repconv{{k}}.bn", "norm"),
        (f"{_UNIT}_ffn/norm", f"{block}.{norm}2", "norm"),
        (f"{_UNIT}_ffn/fc{{n}}", f"{block}.ffn_block.ffn_fc{{n}}.conv", "dense"),
        (f"{_UNIT}_ffn/norm{{n}}", f"{block}.ffn_block.ffn_fc{{n}}.bn", "norm"),
        *_head(*head),
    ]


def _repmlpnet_mm(*stem):
    return _repmlpnet(
        stem=[f"backbone.{module}" for module in stem],
        embed="backbone.downsample_layers.{e}",
        block="backbone.stages.{s}.{b}",
        gate="gp.conv{n}.conv",
        norm="norm",
        head=("backbone.final_norm", "head.fc"),
    )


def _head(norm="norm", classifier="head", kind="norm"):
    return [("head/norm", norm, kind), ("head/dense", classifier, "dense")]


def _mlp_mixer_timm():
    block = "blocks.{b}"
    patches, channels = "block{b}_cross_patch", "block{b}_cross_channel"
    return [
        ("patch_embed/dense", "stem.proj", "patch"),
        (f"{patches}/norm", f"{block}.norm1", "norm"),
        (f"{patches}/fc{{n}}", f"{block}.mlp_tokens.fc{{n}}", "positions"),
        (f"{channels}/norm", f"{block}.norm2", "norm"),
        (f"{channels}/fc{{n}}", f"{block}.mlp_channels.fc{{n}}", "dense"),
        *_head(),
    ]


def _resmlp(stem, mixing, scale, mlp):
    block = "blocks.{b}"
    patches, channels = "block{b}_cross_patch", "block{b}_cross_channel"
    return [
        ("patch_embed/dense", f"{stem}.proj", "patch"),
        (f"{patches}/norm", f"{block}.norm1", "affine"),
        (f"{patches}/mix", f"{block}.{mixing}", "positions"),
        (patches, f"{block}.{scale}1", "parameter"),
        (f"{channels}/norm", f"{block}.norm2", "affine"),
        (f"{channels}/fc{{n}}", f"{block}.{mlp}.fc{{n}}", "dense"),
        (channels, f"{block}.{scale}2", "parameter"),
        *_head(kind="affine"),
    ]


def _convmlp():
    block = "stages.{s}.blocks.{b}"
    # Their sequences count convolution, norm and ReLU.
    sequences = [
        (f"{ours}{index}/{part}", f"{theirs}.{3 * index + offset}", part)
        for ours, theirs in (
            ("tokenizer_conv", "tokenizer.block"),
            ("conv_block{b}_conv", "conv_stages.conv_blocks.{b}"),
        )
        for index in range(3)
        for offset, part in enumerate(("conv", "norm"))
    ]
    downsample = "stages.{s}.downsample_mlp.downsample"
    return [
        *sequences,
        ("conv_downsample/conv", "conv_stages.downsample", "conv"),
        (f"{_UNIT}_mlp{{m}}/norm", f"{block}.norm{{m}}", "norm"),
        (f"{_UNIT}_mlp{{m}}/fc{{n}}", f"{block}.channel_mlp{{m}}.fc{{n}}", "dense"),
        (f"{_UNIT}_connect/norm", f"{block}.connect_norm", "norm"),
        (f"{_UNIT}_connect/conv", f"{block}.connect", "depthwise"),
        ("stage{s}_downsample/conv", downsample, "conv"),
        *_head(),
    ]


def _msmlp():
    mix = f"{_UNIT}_mix_shift"
    return [
        *_patch_embed(),
        *_projected_merging(),
        (f"{mix}/horizontal_{{g}}", f"{_BLOCK}.dwconv_lr.{{g}}", "depthwise"),
        (f"{mix}/vertical_{{g}}", f"{_BLOCK}.dwconv_td.{{g}}", "depthwise"),
        (f"{_UNIT}_mlp/norm", f"{_BLOCK}.norm", "norm"),
        (f"{_UNIT}_mlp/fc{{n}}", f"{_BLOCK}.pwconv{{n}}", "dense"),
        (f"{_UNIT}_mlp", f"{_BLOCK}.gamma", "parameter"),
        *_head(),
    ]


def _patch_embed():
    return [
        ("patch_embed/dense", "patch_embed.proj", "patch"),
        ("patch_embed/norm", "patch_embed.norm", "norm"),
    ]


def _projected_merging():
    return [
        ("downsample{s}/dense", "layers.{s}.downsample.proj", "patch"),
        ("downsample{s}/norm", "layers.{s}.downsample.norm", "norm"),
    ]


def _smlpnet(depths):
    """Return the authors' names of sMLPNet.

    They count embeddings and blocks through all stages; without `depths` so do the
    rows, which then know `embed{e}` and `unit{u}` in place of our layers.
    """
    if depths is None:
        embeds, units = [("embed{e}", "{e}")], [("unit{u}", "{u}")]
    else:
        stages = range(len(depths))
        embeds = [(f"downsample{i - 1}" if i else "patch_embed", i) for i in stages]
        blocks = [(stage, block) for stage in stages for block in range(depths[stage])]
        units = [(f"stage{s}_block{b}", i) for i, (s, b) in enumerate(blocks)]
    rows = [(f"{o}/dense", f"to_patch_embedding.{i}.0", "patch") for o, i in embeds]
    for unit, index in units:
        token, channel = f"token_mix.{index}", f"channel_mix.{index}"
        rows += [
            (f"{unit}_norm/norm", f"{token}.0.conv_merge.BN", "norm"),
            (f"{unit}_depthwise/conv", f"{token}.0.conv_merge.Conv", "depthwise"),
            (f"{unit}_depthwise/norm", f"{token}.1.BN", "norm"),
            # Their proj_h mixes along the width, proh_w along the height.
            (f"{unit}_sparse_mlp/mix_width", f"{token}.1.proj_h", "positions"),
            (f"{unit}_sparse_mlp/mix_height", f"{token}.1.proh_w", "positions"),
            (f"{unit}_sparse_mlp/fuse", f"{token}.1.fuse", "dense"),
            (f"{unit}_ffn/norm", f"{channel}.1", "norm"),
            (f"{unit}_ffn/fc1", f"{channel}.2.net.0", "dense"),
            (f"{unit}_ffn/fc2", f"{channel}.2.net.3", "dense"),
        ]
    return [*rows, *_head("batch_norm", "mlp_head.0")]


def _swin_timm(depths):
    """Return timm's names of Swin: what leads into a stage is part of it."""
    stages = range(1, 4 if depths is None else len(depths))
    merging = [(f"downsample{s - 1}", f"layers.{s}.downsample") for s in stages]
    return _swin(merging, "head.fc")


def _swin(merging, classifier="head"):
    return [
        *((f"{o}/norm", f"{theirs}.norm", "merging_norm") for o, theirs in merging),
        *((f"{o}/dense", f"{theirs}.reduction", "merging") for o, theirs in merging),
        (f"{_UNIT}_attention", f"{_BLOCK}.attn", "attention"),
        *_transformer(classifier),
    ]


def _focal():
    attention = f"{_UNIT}_attention"
    windows = f"{_BLOCK}.attn.relative_position_bias_table_to_windows"
    return [
        *_projected_merging(),
        (f"{attention}/pool", f"{_BLOCK}.pool_layers.0", "positions"),
        (attention, f"{_BLOCK}.attn", "focal"),
        (attention, windows, "focal_windows"),
        *_transformer(),
    ]


def _transformer(classifier="head"):
    return [
        *_patch_embed(),
        (f"{_UNIT}_attention/norm", f"{_BLOCK}.norm1", "norm"),
        (f"{_UNIT}_attention/qkv", f"{_BLOCK}.attn.qkv", "dense"),
        (f"{_UNIT}_attention/proj", f"{_BLOCK}.attn.proj", "dense"),
        (f"{_UNIT}_mlp/norm", f"{_BLOCK}.norm2", "norm"),
        (f"{_UNIT}_mlp/fc{{n}}", f"{_BLOCK}.mlp.fc{{n}}", "dense"),
        *_head(classifier=classifier),
    ]


# mmcls, whose own converter wrote other names of the stem, is mmpretrain's predecessor.
SCHEMES = {
    RepMLPNet: (
        Scheme(
            "published",  # before and after Locality Injection
            _repmlpnet(
                stem=("conv_embedding.conv", "conv_embedding.bn"),
                embed="embeds.{e}",
                block="stages.{s}.{b}",
                gate="gp.fc{n}",
                norm="prebn",
                head=("head_norm", "head"),
            ),
        ),
        Scheme(
            "mmpretrain", _repmlpnet_mm("patch_embed.projection", "patch_embed.norm")
        ),
        Scheme("mmcls", _repmlpnet_mm("path_embed.conv", "path_embed.bn")),
    ),
    ResMLP: (
        Scheme("published", _resmlp("patch_embed", "attn", "gamma_", "mlp")),
        Scheme("timm", _resmlp("stem", "linear_tokens", "ls", "mlp_channels")),
        Scheme("timm", _mlp_mixer_timm()),
    ),
    ConvMLP: (Scheme("published", _convmlp()),),
    FocalTransformer: (Scheme("published", _focal()),),
    MSMLP: (Scheme("published", _msmlp()),),
    SMLPNet: (Scheme("published", _smlpnet),),
    SwinTransformer: (
        Scheme("published", _swin([("downsample{s}", "layers.{s}.downsample")])),
        Scheme("timm", _swin_timm),
    ),
}
_FAMILIES = {family.__name__: family for family in SCHEMES}


def _retinanet():
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


def _mask_rcnn():
    """Return Mask R-CNN's rows; Faster R-CNN's are among them."""
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


def _semantic_fpn():
    # The steps' doublings are numbered among them.
    steps = {
        f"p{level + 2}_step{step}_conv": f"decode_head.scale_heads.{level}.{2 * step}"
        for level in range(4)
        for step in range(max(level, 1))
    }
    classifier = ("classifier/conv", "decode_head.conv_seg", "conv")
    return [*_neck(), classifier, *_conv_norms(steps)]


def _upernet():
    head, second = "decode_head", "auxiliary_head"
    convs = {f"pool{b}_conv": f"{head}.psp_modules.{i}.1" for i, b in enumerate(_BINS)}
    convs |= {f"p{i + 2}_lateral": f"{head}.lateral_convs.{i}" for i in range(3)}
    convs |= {f"p{i + 2}_smooth": f"{head}.fpn_convs.{i}" for i in range(3)}
    convs["pool_conv"] = f"{head}.bottleneck"
    convs["fuse"] = f"{head}.fpn_bottleneck"
    convs["auxiliary_conv"] = f"{second}.convs.0"
    return [
        ("classifier/conv", f"{head}.conv_seg", "conv"),
        ("auxiliary_classifier/conv", f"{second}.conv_seg", "conv"),
        *_conv_norms(convs),
    ]


def _conv_norms(modules):
    return [
        (f"{ours}/{part}", f"{theirs}.{name}", part)
        for ours, theirs in modules.items()
        for part, name in (("conv", "conv"), ("norm", "bn"))
    ]


def _neck():
    return [
        ("fpn/lateral{i}/conv", "neck.lateral_convs.{i}.conv", "conv"),
        ("fpn/smooth{i}/conv", "neck.fpn_convs.{i}.conv", "conv"),
    ]


# Class of the dense model, whose module stands above this one -> its rows, and where
# it says something of each class.
DENSE: dict[str, tuple[list, tuple[str, ...]]] = {
    "RetinaNet": (_retinanet(), ("class_head/predict/",)),
    "MaskRCNN": (
        _mask_rcnn(),
        ("box_head/classes/", "box_head/boxes/", "mask_head/masks/"),
    ),
    "SemanticFPN": (_semantic_fpn(), ("classifier/",)),
    "UperNet": (_upernet(), ("classifier/", "auxiliary_classifier/")),
}


def schemes_of(model: keras.Model) -> tuple[Scheme, ...]:
    """Return the schemes that name a model's parameters, none where nobody does."""
    if type(model) in SCHEMES:
        return SCHEMES[type(model)]
    if type(model).__name__ not in DENSE:
        return ()
    heads, _ = DENSE[type(model).__name__]
    family: Any = _FAMILIES.get(model.get_config()["backbone"]["class_name"])
    return tuple(_around(scheme, heads) for scheme in SCHEMES.get(family, ()))


def depths_of(model: keras.Model) -> tuple[int, ...] | None:
    """Return the blocks per stage of a model or of a dense model's backbone."""
    if type(model).__name__ in DENSE:
        return model.get_config()["backbone"]["config"].get("depths")
    return getattr(model, "depths", None)


def classifier_of(model: keras.Model) -> tuple[str, ...]:
    """Return the beginnings of the paths that depend on the classes."""
    _, paths = DENSE.get(type(model).__name__, ([], _CLASSIFIER))
    return paths


def _around(scheme, heads):
    def rows(depths: Sequence[int] | None) -> list[Row]:
        backbone = [
            (ours, f"backbone.{theirs}", kind)
            for ours, theirs, kind in scheme.table(depths)
            if not ours.startswith("head/")
        ]
        return [*backbone, *heads]

    return Scheme("OpenMMLab", rows)
