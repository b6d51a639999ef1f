"""`kmlp plot saliency` and `features`: what networks see in images."""

import argparse
import functools

import numpy as np

from kmlp.commands.arguments import indices, positive, rate, seed
from kmlp.commands.plot.plotted import Kind
from kmlp.commands.plot.shown_images import Viewer, add_pictures, show
from kmlp.errors import InputError, nearest

# Method -> its title, its function in `kmlp.analysis.saliency`, options of its own.
_METHODS = {
    "gradient": ("gradient", "gradient", ()),
    "smoothgrad": ("SmoothGrad", "smooth_grad", ("samples", "noise", "seed")),
    "integrated": (
        "integrated gradients",
        "integrated_gradients",
        ("steps", "baseline"),
    ),
    "cam": ("Grad-CAM", "class_activation_map", ("layer",)),
}


def _add_saliency(parser):
    add_pictures(parser)
    add = parser.add_argument
    add(
        "--method",
        type=_methods,
        action="extend",
        metavar="METHOD",
        help=f"{', '.join(_METHODS)}; several with commas between them, or once for "
        "each (default: gradient)",
    )
    add(
        "--class",
        dest="of_class",
        metavar="NAME|N",
        help="the class to explain (default: each network's own choice)",
    )
    add("--alone", action="store_true", help="maps without the picture below")
    group = parser.add_argument_group("methods")
    add = group.add_argument
    add("--samples", type=positive, metavar="N", help="of SmoothGrad (25)")
    add("--noise", type=rate, metavar="X", help="of SmoothGrad, for the range (0.15)")
    add("--seed", type=seed, metavar="N", help="of SmoothGrad's noise (0)")
    add(
        "--steps",
        type=positive,
        metavar="N",
        help="of integrated gradients (64; 192 or 576 where an image's logit change is "
        "missed by more than 1 %%)",
    )
    add(
        "--baseline",
        choices=("black", "mean"),
        help="where integrated gradients begin: black, or the training images' mean "
        "colour (black)",
    )
    add("--layer", metavar="NAME", help="of Grad-CAM, such as P4 (the last map)")


def _methods(text):
    names = text.split(",")
    if unknown := [name for name in names if name not in _METHODS]:
        raise argparse.ArgumentTypeError(
            f"must be of {', '.join(_METHODS)}, not {unknown[0]!r}"
        )
    return names


def _saliency(options):
    """Draw, for each image, where networks look: a column for each network and method.

    Logits are differentiated, no softmax. As in ConvMLP's Fig. 5.
    """
    from kmlp import plots

    methods = list(dict.fromkeys(options.method or ["gradient"]))
    for method, (*_, own) in _METHODS.items():
        lost = [name for name in own if getattr(options, name) is not None]
        if lost and method not in methods:
            raise InputError(
                f"--{lost[0]} goes with --method {method}: add it, or leave the option "
                f"out. Received: --method {','.join(methods)}"
            )
    seen = [functools.partial(_explained, method, options) for method in methods]
    draw = functools.partial(plots.saliency, alone=options.alone)
    return show(options, "Saliency is", _open_classifier, seen, draw)


def _open_classifier(weights, path, values, options):
    from kmlp.predicting.classifying import open_classifier, softmax

    one = open_classifier(
        path, given=values, resolution=options.resolution, merged=False
    )
    source = one.weights.source
    is_open = hasattr(source, "layers")
    if not is_open and one.scores is not softmax:
        raise InputError(
            "This SavedModel ends in an activation, and its logits are lost: pass "
            f"the .keras checkpoint. Received: {str(weights)!r}"
        )
    of_class = _class(weights, one.class_names, options.of_class)
    if "cam" in (options.method or ()):
        if not is_open:
            raise InputError(
                "A SavedModel does not show its maps: pass the .keras checkpoint, or "
                "--method gradient, smoothgrad or integrated. "
                f"Received: --method cam of {weights!r}"
            )
        _check_maps(source, options.layer)
    scores = _scores(source)
    return Viewer(weights, source, one.prepared, one.class_names, scores, of_class)


def _scores(source):
    """Return what makes logits scores: softmax, or the network's own activation."""
    from kmlp.predicting.classifying import softmax

    activation = getattr(source, "head_activation", None)
    if activation in (None, "softmax"):
        return softmax
    import keras

    activated = keras.activations.get(activation)
    return lambda logits: keras.ops.convert_to_numpy(activated(logits))


def _class(weights, names, asked):
    """Return the number of the asked class, `None` for the network's choice."""
    if asked is None:
        return None
    if asked in names:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < len(names):
        return int(asked)
    near = nearest(asked, names) or names[:3]
    raise InputError(
        f"{weights} has no such class: pass a name, such as {', '.join(near)}, "
        f"or a number of 0 to {len(names) - 1}. Received: --class {asked}"
    )


def _check_maps(model, *layers):
    from kmlp.analysis.maps import find_map

    for layer in layers or (None,):
        find_map(model, layer)


def _explained(method, options, viewer, pixels):
    """Return the column of a network and a method."""
    from kmlp.analysis import saliency
    from kmlp.data.scoring import check_finite
    from kmlp.plots.image_sheets import Explained

    title, function, own = _METHODS[method]
    values = {name: getattr(options, name) for name in (*own, "batch_size")}
    if method == "integrated":
        black = -np.asarray(viewer.prepared.mean) / np.asarray(viewer.prepared.std)
        values["baseline"] = 0.0 if options.baseline == "mean" else black
    values = {name: value for name, value in values.items() if value is not None}
    explain = getattr(saliency, function)
    found = explain(viewer.source, pixels, viewer.of_class, **values)
    check_finite(found.maps, "gradients", viewer.weights)
    check_finite(found.logits, "logits", viewer.weights)
    if method == "integrated":
        worst = np.abs(found.gap / np.where(found.change == 0, np.inf, found.change))
        print(
            f"{viewer.label}: integrated gradients miss up to {worst.max():.1%} of the "
            f"logit's change ({found.steps.max()} steps)",
            flush=True,
        )
    words = []
    for row, explained in zip(viewer.scores(found.logits), found.classes):
        best = int(row.argmax())
        text = f"{viewer.class_names[best]} {row[best]:.0%}"
        if explained != best:
            text += f"\n(for {viewer.class_names[explained]} {row[explained]:.0%})"
        words.append(text)
    layer = f", {found.layer}" if found.layer else ""
    title = f"{viewer.label}\n{title}{layer}"
    return Explained(title, viewer.picture(pixels), found, tuple(words))


_CHANNELS = 2


def _add_features(parser):
    add_pictures(parser)
    add = parser.add_argument
    add(
        "--channels",
        type=positive,
        metavar="N",
        help=f"how many of each stage, the most varied (default: {_CHANNELS})",
    )
    add(
        "--channel",
        type=indices,
        metavar="N,…",
        help="these of each stage, from 0, instead of the most varied",
    )
    add(
        "--layers",
        type=lambda text: text.split(","),
        metavar="NAME,…",
        help="levels of the pyramid or layers, instead of the stages",
    )


def _features(options):
    """Draw, for each image and network, maps of each stage.

    By default they are of the channels that vary most from place to place. Networks of
    one resolution are shown at four depths. As in ConvMLP's Fig. 4, which has
    --image-size 1024.
    """
    from kmlp import plots

    if None not in (options.channels, options.channel):
        raise InputError(
            "--channels says how many, --channel says which: leave one out. Received: "
            f"--channels {options.channels} --channel "
            f"{','.join(map(str, options.channel))}"
        )
    seen = [functools.partial(_shown, options)]
    return show(options, "Feature maps are", _open_model, seen, plots.features)


def _open_model(weights, path, values, options):
    from kmlp.predicting.classifying import completed
    from kmlp.preprocessing import Preprocessing
    from kmlp.pretrained.creation import create_model

    size = values.get("image_size")
    model = create_model(
        weights=path,
        input_shape=None if size is None else (size, size, 3),
        resolution=options.resolution,
    )
    _check_maps(model, *(options.layers or ()))
    known = getattr(model, "preprocessing", None) or Preprocessing()
    prepared = completed(known, values, model.inputs[0].shape[1], weights)
    return Viewer(weights, model, prepared, prepared.class_names)


def _shown(options, viewer, pixels):
    """Return the maps of a network, and which channels of them are drawn."""
    from kmlp.analysis.features import BATCH, stage_maps, varied_channels
    from kmlp.data.scoring import check_finite
    from kmlp.plots.image_sheets import Shown

    batch_size = options.batch_size or BATCH
    maps = stage_maps(
        viewer.source, pixels, layers=options.layers, batch_size=batch_size
    )
    highest = max(options.channel or (0,))
    for stage, values in maps.items():
        check_finite(values, f"maps of {stage}", viewer.weights)
        if highest >= values.shape[-1]:
            raise InputError(
                f"{stage} of {viewer.label} has channels 0 to {values.shape[-1] - 1}. "
                f"Received: --channel {highest}"
            )
    count = options.channels or _CHANNELS
    channels = {
        stage: options.channel or tuple(map(int, varied_channels(values, count)))
        for stage, values in maps.items()
    }
    return Shown(viewer.label, viewer.picture(pixels), maps, channels)


KINDS = {
    "saliency": Kind(
        "which pixels of images a class hangs on", _add_saliency, _saliency
    ),
    "features": Kind("feature maps of each stage", _add_features, _features),
}
