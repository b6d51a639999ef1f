"""Published dense models: OpenMMLab's names, and PyTorch's layers as the oracle."""

import keras
import numpy as np
import pytest
from cases import images, run

import kmlp
from kmlp.detection import CascadeMaskRCNN, MaskRCNN, RetinaNet
from kmlp.segmentation import SemanticFPN, UperNet

torch = pytest.importorskip("torch")
published = pytest.importorskip("kmlp.pytorch.published_pyramids")
nn, functional = torch.nn, torch.nn.functional
TOLERANCE = 1e-5
CLASSES, FILTERS, UNITS, MASK = 5, 12, 20, 8
SMALL = {
    "stem_width": 8,
    "conv_blocks": 1,
    "widths": (10, 12, 14),
    "depths": (1, 1, 1),
    "drop_path_rate": 0.0,
}
numpy = keras.ops.convert_to_numpy


class Conv(nn.Module):
    """A convolution as mmcv wraps it, `….conv`."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(*args, **kwargs)

    def forward(self, x):
        return self.conv(x)


def convs(count, inner=FILTERS):
    return nn.ModuleList(
        Conv(FILTERS if i == 0 else inner, inner, 3, padding=1) for i in range(count)
    )


class Neck(nn.Module):
    """Channels in, and how many of the convolutions are extra ones of stride 2."""

    def __init__(self, channels, extra):
        super().__init__()
        self.lateral_convs = nn.ModuleList(Conv(c, FILTERS, 1) for c in channels)
        self.fpn_convs = convs(len(channels))
        for i in range(extra):
            first = channels[-1] if i == 0 else FILTERS
            self.fpn_convs.append(Conv(first, FILTERS, 3, stride=2, padding=1))

    def forward(self, inputs):
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        for i in range(len(maps) - 1, 0, -1):
            size = maps[i - 1].shape[2:]
            maps[i - 1] = maps[i - 1] + functional.interpolate(maps[i], size=size)
        smooth, extra = self.fpn_convs[: len(maps)], self.fpn_convs[len(maps) :]
        maps = [conv(x) for conv, x in zip(smooth, maps)]
        x = inputs[-1]
        for conv in extra:
            x = conv(x)
            maps.append(x)
        return maps


def attributes(**modules):
    """A module of named parts."""
    module = nn.Module()
    for name, part in modules.items():
        setattr(module, name, part)
    return module


def state_of(module, backbone):
    """The state of heads and, named as theirs, of a backbone without its head."""
    state = {k: v.detach().numpy() for k, v in module.state_dict().items()}
    names = backbone.state_dict().items()
    ours = {k: v.numpy() for k, v in names if not k.startswith(("norm.", "head."))}
    return state | {f"backbone.{k}": v for k, v in ours.items()}


def backbones():
    """Our backbone, and the authors' layout of it with other weights."""
    ours = kmlp.ConvMLP(3, (64, 96, 3), include_top=False, **SMALL)
    theirs = published.ConvMLP(
        blocks=(1, 1, 1),
        dims=(10, 12, 14),
        mlp_ratios=(2, 2, 2),
        channels=8,
        n_conv_blocks=1,
        num_classes=3,
    )
    theirs.eval()
    random = torch.Generator().manual_seed(0)
    for name, value in theirs.state_dict().items():
        if value.dtype == torch.float32 and value.ndim == 1:
            noise = torch.rand(value.shape, generator=random)
            value.copy_(0.5 + noise if "bias" not in name else noise - 0.5)
    return ours, theirs


def channels_first(x):
    return torch.from_numpy(np.moveaxis(np.array(x), -1, 1))


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def close(found, expected, name):
    found = np.asarray(found, "float64")
    scale = np.abs(expected).max()
    assert scale > 1e-3, name
    assert np.abs(found - expected).max() <= TOLERANCE * scale, name


def test_retinanet():
    torch.manual_seed(1)
    ours, theirs = backbones()
    anchors = 9
    heads = attributes(
        neck=Neck([10, 12, 14], extra=2),
        bbox_head=attributes(
            cls_convs=convs(2),
            reg_convs=convs(2),
            retina_cls=nn.Conv2d(FILTERS, anchors * CLASSES, 3, padding=1),
            retina_reg=nn.Conv2d(FILTERS, anchors * 4, 3, padding=1),
        ),
    )
    model = RetinaNet(ours, CLASSES, fpn_filters=FILTERS, head_convs=2)
    kmlp.load_published(model, state_of(heads, theirs))
    x = images(model)
    found = run(model, x, training=True)
    taps = run(model.backbone, x, training=True)
    maps = heads.neck([channels_first(taps[k]) for k in ("P3", "P4", "P5")])
    for i, level in enumerate(maps):
        for key, tower, last in (
            ("class", heads.bbox_head.cls_convs, heads.bbox_head.retina_cls),
            ("box", heads.bbox_head.reg_convs, heads.bbox_head.retina_reg),
        ):
            y = level
            for conv in tower:
                y = functional.relu(conv(y))
            close(found[key][i], channels_last(last(y)), f"{key} {i}")


def mask_rcnn():
    torch.manual_seed(2)
    ours, theirs = backbones()
    first, rest = convs(1, MASK)[0], Conv(MASK, MASK, 3, padding=1)
    heads = attributes(
        neck=Neck([8, 10, 12, 14], extra=0),
        rpn_head=attributes(
            rpn_conv=nn.Conv2d(FILTERS, FILTERS, 3, padding=1),
            rpn_cls=nn.Conv2d(FILTERS, 3, 1),
            rpn_reg=nn.Conv2d(FILTERS, 12, 1),
        ),
        roi_head=attributes(
            bbox_head=attributes(
                shared_fcs=nn.ModuleList(
                    [nn.Linear(49 * FILTERS, UNITS), nn.Linear(UNITS, UNITS)]
                ),
                fc_cls=nn.Linear(UNITS, CLASSES + 1),
                fc_reg=nn.Linear(UNITS, 4 * CLASSES),
            ),
            mask_head=attributes(
                convs=nn.ModuleList([first, rest]),
                upsample=nn.ConvTranspose2d(MASK, MASK, 2, stride=2),
                conv_logits=nn.Conv2d(MASK, CLASSES, 1),
            ),
        ),
    )
    model = MaskRCNN(
        ours,
        CLASSES,
        fpn_filters=FILTERS,
        fc_units=UNITS,
        mask_convs=2,
        mask_filters=MASK,
        candidates=50,
        proposals=10,
    )
    return model, heads, state_of(heads, theirs)


def test_mask_rcnn():
    model, heads, state = mask_rcnn()
    counters = {"backbone.tokenizer.block.1.num_batches_tracked": np.array(3)}
    kmlp.load_published(model, state | counters)
    x = images(model)
    found = run(model, x, training=True)
    taps = run(model.backbone, x, training=True)
    maps = heads.neck([channels_first(taps[f"P{i}"]) for i in (2, 3, 4, 5)])
    maps.append(functional.max_pool2d(maps[-1], 1, stride=2))
    rpn = heads.rpn_head
    for i, level in enumerate(maps):
        close(found["maps"][i], channels_last(level), f"level {i}")
        y = functional.relu(rpn.rpn_conv(level))
        close(found["objectness"][i], channels_last(rpn.rpn_cls(y)), f"class {i}")
        close(found["codes"][i], channels_last(rpn.rpn_reg(y)), f"box {i}")

    random = np.random.default_rng(3)
    regions = random.normal(size=(2, 3, 7, 7, FILTERS)).astype("float32")
    logits, codes = run(model.box_heads[0], regions)
    boxes = heads.roi_head.bbox_head
    y = channels_first(regions.reshape(6, 7, 7, FILTERS)).flatten(1)
    for dense in boxes.shared_fcs:
        y = functional.relu(dense(y))
    close(logits, boxes.fc_cls(y).detach().numpy().reshape(2, 3, -1), "classes")
    close(codes, boxes.fc_reg(y).detach().numpy().reshape(2, 3, CLASSES, 4), "boxes")

    regions = random.normal(size=(2, 3, 14, 14, FILTERS)).astype("float32")
    masks = run(model.mask_heads[0], regions)
    head = heads.roi_head.mask_head
    y = channels_first(regions.reshape(6, 14, 14, FILTERS))
    for conv in head.convs:
        y = functional.relu(conv(y))
    y = head.conv_logits(functional.relu(head.upsample(y)))
    close(masks, channels_last(y).reshape(2, 3, 28, 28, CLASSES), "masks")


def test_the_backbone_is_the_classifiers():
    model, _, state = mask_rcnn()
    kmlp.load_published(model, state)
    plain = kmlp.ConvMLP(3, (64, 96, 3), include_top=False, **SMALL)
    inner = {k.removeprefix("backbone."): v for k, v in state.items()}
    kmlp.load_published(plain, {k: inner[k] for k in inner if k not in state})
    expected = {w.path: numpy(w) for w in plain.weights}
    assert {w.path for w in model.backbone.weights} == expected.keys()
    for weight in model.backbone.weights:
        np.testing.assert_array_equal(numpy(weight), expected[weight.path])


def test_loading_is_strict():
    model, _, state = mask_rcnn()
    before = model.get_weights()
    name = "roi_head.bbox_head.shared_fcs.0.weight"
    for changed, message in (
        ({k: v for k, v in state.items() if k != name}, name),
        (state | {"roi_head.mask_iou_head.fc.weight": np.zeros(3)}, "mask_iou_head"),
        (state | {"rpn_head.rpn_cls.bias": np.zeros(9)}, "rpn_cls.bias"),
    ):
        with pytest.raises(ValueError, match=message):
            kmlp.load_published(model, changed)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_other_classes_keep_their_own_predictions():
    model, _, state = mask_rcnn()
    for part, rows in (("bbox_head.fc_cls", 81), ("bbox_head.fc_reg", 320)):
        state[f"roi_head.{part}.weight"] = np.zeros((rows, UNITS), "float32")
        state[f"roi_head.{part}.bias"] = np.zeros(rows, "float32")
    with pytest.raises(ValueError, match="which has 5: pass new_head=True"):
        kmlp.load_published(model, state)
    head = model.box_heads[0]
    before = [numpy(w) for w in head.classes.weights + head.boxes.weights]
    kmlp.load_published(model, state, new_head=True)
    after = [numpy(w) for w in head.classes.weights + head.boxes.weights]
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)
    expected = state["roi_head.bbox_head.shared_fcs.1.weight"].T
    np.testing.assert_array_equal(numpy(head.dense[1].kernel), expected)


def conv_bn(channels, filters, size=3):
    """A convolution as mmcv wraps it, with a norm of random statistics."""
    part = Conv(channels, filters, size, padding=size // 2, bias=False)
    part.bn = nn.BatchNorm2d(filters)
    for value in (part.bn.weight, part.bn.running_var):
        nn.init.uniform_(value, 0.5, 1.5)
    for value in (part.bn.bias, part.bn.running_mean):
        nn.init.normal_(value)
    return part.eval()


def test_semantic_fpn():
    torch.manual_seed(4)
    ours, theirs = backbones()
    doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    scale_heads = nn.ModuleList(
        nn.ModuleList(
            part
            for step in range(max(level, 1))
            for part in (conv_bn(MASK if step else FILTERS, MASK), doubled)
        )
        for level in range(4)
    )
    heads = attributes(
        neck=Neck([8, 10, 12, 14], extra=0),
        decode_head=attributes(
            scale_heads=scale_heads, conv_seg=nn.Conv2d(MASK, CLASSES, 1)
        ),
    )
    model = SemanticFPN(ours, CLASSES, fpn_filters=FILTERS, filters=MASK)
    kmlp.load_published(model, state_of(heads, theirs))
    x = images(model)
    found = run(model, x)
    taps = run(model.backbone, x)
    maps = heads.neck([channels_first(taps[f"P{i}"]) for i in (2, 3, 4, 5)])
    total = 0
    for level, parts in enumerate(scale_heads):
        y = maps[level]
        for part in parts:
            if isinstance(part, nn.Upsample):
                y = part(y) if level else y
            else:
                y = functional.relu(part.bn(part(y)))
        total = total + y
    logits = heads.decode_head.conv_seg(total)
    expected = functional.interpolate(logits, x.shape[1:3], mode="bilinear")
    close(found, channels_last(expected), "logits")


def test_upernet():
    torch.manual_seed(5)
    ours, theirs = backbones()
    channels, bins = [8, 10, 12, 14], (1, 2, 3, 6)
    heads = attributes(
        decode_head=attributes(
            psp_modules=nn.ModuleList(
                nn.ModuleList([nn.AdaptiveAvgPool2d(b), conv_bn(14, MASK, 1)])
                for b in bins
            ),
            bottleneck=conv_bn(14 + 4 * MASK, MASK),
            lateral_convs=nn.ModuleList(conv_bn(c, MASK, 1) for c in channels[:3]),
            fpn_convs=nn.ModuleList(conv_bn(MASK, MASK) for _ in range(3)),
            fpn_bottleneck=conv_bn(4 * MASK, MASK),
            conv_seg=nn.Conv2d(MASK, CLASSES, 1),
        ),
        auxiliary_head=attributes(
            convs=nn.ModuleList([conv_bn(12, UNITS)]),
            conv_seg=nn.Conv2d(UNITS, CLASSES, 1),
        ),
    )
    model = UperNet(ours, CLASSES, filters=MASK, auxiliary_filters=UNITS)
    kmlp.load_published(model, state_of(heads, theirs))
    x = images(model)
    found, taps = run(model, x), run(model.backbone, x)
    maps = [channels_first(taps[f"P{i}"]) for i in (2, 3, 4, 5)]

    def apply(part, x):
        return functional.relu(part.bn(part(x)))

    def resized(x, like):
        return functional.interpolate(x, like.shape[2:], mode="bilinear")

    head = heads.decode_head
    pooled = [
        resized(apply(conv, pool(maps[3])), maps[3]) for pool, conv in head.psp_modules
    ]
    levels = [apply(conv, y) for conv, y in zip(head.lateral_convs, maps)]
    levels.append(apply(head.bottleneck, torch.cat([maps[3], *pooled], 1)))
    for i in (2, 1, 0):
        levels[i] = levels[i] + resized(levels[i + 1], levels[i])
    levels[:3] = [apply(conv, y) for conv, y in zip(head.fpn_convs, levels)]
    levels = [resized(y, levels[0]) for y in levels]
    y = head.conv_seg(apply(head.fpn_bottleneck, torch.cat(levels, 1)))
    expected = functional.interpolate(y, x.shape[1:3], mode="bilinear")
    close(found, channels_last(expected), "logits")
    answer = run(model.auxiliary_classifier, run(model.auxiliary_conv, taps["P4"]))
    head = heads.auxiliary_head
    expected = head.conv_seg(apply(head.convs[0], maps[2]))
    close(answer, channels_last(expected), "auxiliary")


def test_a_cascade_was_never_published():
    ours, _ = backbones()
    small = {"fpn_filters": 8, "fc_units": 8, "masks": False}
    model = CascadeMaskRCNN(ours, 2, **small)
    with pytest.raises(ValueError, match="Received: CascadeMaskRCNN"):
        kmlp.load_published(model, {})
