"""Frozen stages: parts of a network that keep what they learned elsewhere.

A frozen part runs as in inference: BatchNorm takes its moving statistics and leaves
them as they are, and stochastic depth drops nothing.
"""

import re

import keras

from kmlp.errors import InputError

ALL, NORM = "all", "norm"
# Family -> its parts from the images on, as beginnings of layers' names; {k} numbers
# the stages or blocks. What leads from one stage into the next belongs to the next,
# where its name does not say otherwise.
PARTS = {
    "ConvMLP": {
        "stem": ("tokenizer_",),
        "conv_stage": ("conv_",),
        "stage{k}": ("stage{k}_",),
    },
    "FocalTransformer": {
        "stem": ("patch_embed",),
        "stage{k}": ("downsample{before}", "stage{k}_"),
    },
    "MSMLP": {
        "stem": ("patch_embed",),
        "stage{k}": ("downsample{before}", "stage{k}_"),
    },
    "RepMLPNet": {"stem": ("stem",), "stage{k}": ("embed{before}", "stage{k}_")},
    "ResMLP": {
        "stem": ("patch_embed", "position_encoding"),
        "block{k}": ("block{k}_",),
    },
    "SMLPNet": {
        "stem": ("patch_embed",),
        "stage{k}": ("downsample{before}", "stage{k}_"),
    },
    "SwinTransformer": {
        "stem": ("patch_embed",),
        "stage{k}": ("downsample{before}", "stage{k}_"),
    },
    "MSMLPHybrid": {
        "stem": ("patch_embed",),
        "stage{k}": ("downsample{before}", "stage{k}_"),
    },
}


def parts(model):
    """The parts of a network in the order in which images pass through them.

    Args:
        model: of one of the families.

    Returns:
        `{name: layers}`; the last is `"norm"`, that of the head, where there is one.
    """
    found = {}
    for name, beginnings in PARTS[type(model).__name__].items():
        numbers = range(len(model.layers)) if "{k}" in name else [0]
        for k in numbers:
            starts = tuple(b.format(k=k, before=k - 1) for b in beginnings)
            layers = [x for x in model.layers if x.name.startswith(starts)]
            if not layers and k == 0:
                continue  # a hybrid without stage zero
            if not layers:
                break
            found[name.format(k=k)] = layers
    norms = [x.normalize for x in model.layers if x.name == "head"]
    return {**found, NORM: norms} if any(norms) else found


def chosen(text, model):
    """Names of the parts that `--freeze` stands for.

    Args:
        text: `"all"`: everything but the classifier; a number N: the stem and the
            first N stages, of ResMLP blocks; or names with commas between them.
        model: of one of the families.

    Returns:
        A tuple in the network's order.

    Raises:
        InputError: more stages than there are, or no such part.
    """
    known = list(parts(model))
    stages = [name for name in known if name not in ("stem", NORM)]
    if text == ALL:
        return tuple(known)
    if re.fullmatch(r"\d+", text):
        if int(text) > len(stages):
            raise InputError(
                f"{model.name} has {len(stages)} stages: freeze at most so many, or "
                f"{ALL} but the classifier. Received: --freeze {text}"
            )
        return ("stem", *stages[: int(text)])
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"--freeze takes {ALL}, a number of stages, or names of {model.name}'s "
            f"parts: {', '.join(known)}. Received: --freeze {text}"
        )
    return tuple(name for name in known if name in names)


def freeze(model, names):
    """Freezes parts of a network, before an optimizer is made for it.

    Args:
        model: of one of the families.
        names: of its parts.
    """
    found = parts(model)
    for layer in [layer for name in names for layer in found[name]]:
        layer.trainable = False
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # of stochastic depth
