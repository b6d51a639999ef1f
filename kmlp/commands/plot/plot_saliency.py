"""`kmlp plot saliency`: draw which pixels a class hangs on."""

import argparse

import numpy as np

from kmlp.commands.arguments import Parser, positive, rate, seed
from kmlp.commands.plot.plotted import add_output, check_output, labels_of, write
from kmlp.commands.plot.shown_images import (
    Viewer,
    add_pictures,
    captions,
    check_weights,
    checkpoint_of,
    finish,
    given,
    look,
)
from kmlp.console import import_quietly, progress_bar
from kmlp.errors import InputError, RunError

METHODS = {
    "gradient": "gradient",
    "smoothgrad": "SmoothGrad",
    "integrated": "integrated gradients",
    "cam": "Grad-CAM",
}
# Which method an option goes with.
GOES_WITH = {
    "samples": "smoothgrad",
    "noise": "smoothgrad",
    "seed": "smoothgrad",
    "steps": "integrated",
    "baseline": "integrated",
    "layer": "cam",
}


def add_saliency(parser: Parser) -> None:
    """Add the arguments of `kmlp plot saliency` and the job."""
    parser.description = (
        "Draws, for each image, where networks look: a column for each "
        "network and method. Logits are differentiated, no softmax. As in ConvMLP's "
        "Fig. 5."
    )
    preparation = add_pictures(parser)
    add = parser.add_argument
    add(
        "--method",
        type=_methods,
        action="extend",
        metavar="METHOD",
        help=f"{', '.join(METHODS)}; several with commas between them, or once for "
        "each (default: gradient)",
    )
    add(
        "--class",
        dest="of_class",
        metavar="NAME|N",
        help="the class to explain (default: each network's own choice)",
    )
    add("--alone", action="store_true", help="maps without the picture below")
    add_output(parser, "saliency")
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
    parser.set_defaults(job=_saliency, preparation=preparation)


def _methods(text):
    names = text.split(",")
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(
            f"must be of {', '.join(METHODS)}, not {unknown[0]!r}"
        )
    return names


def _saliency(options):
    check_output(options)
    methods = list(dict.fromkeys(options.method or ["gradient"]))
    for name, method in GOES_WITH.items():
        if getattr(options, name) is not None and method not in methods:
            raise InputError(
                f"--{name} goes with --method {method}: add it, or leave the option "
                f"out. Received: --method {','.join(methods)}"
            )
    preparations = given(options)
    import_quietly()
    from kmlp.data.sources import images_of
    from kmlp.plots.saliency_sheet import saliency

    images = images_of(options.images)
    viewers = _open(options, preparations)
    classes = [_class(viewer, options.of_class) for viewer in viewers]
    if "cam" in methods:
        for viewer in viewers:
            _check_maps(viewer, options.layer)
    readable, inputs = look(viewers, images)
    columns = []
    with progress_bar(len(viewers) * len(methods), "map") as bar:
        for viewer, pixels, of_class in zip(viewers, inputs, classes):
            for method in methods:
                found = _explain(method, viewer, pixels, of_class, options)
                columns.append(_column(viewer, pixels, method, found))
                bar.update()
    known = [name for viewer in viewers for name in viewer.class_names]
    figure = saliency(columns, names=captions(readable, known), alone=options.alone)
    write(figure, options)
    finish(images, readable)


def _open(options, preparations):
    from kmlp.predicting.classifying import open_classifier, softmax

    for weights in options.weights:
        check_weights(weights, "Saliency is")
    opened = []
    for weights, values in zip(options.weights, preparations):
        one = open_classifier(
            checkpoint_of(weights),
            given=values,
            resolution=options.resolution,
            merged=False,
        )
        if not hasattr(one.weights.source, "layers") and one.scores is not softmax:
            raise InputError(
                "This SavedModel ends in an activation, and its logits are lost: pass "
                f"the .keras checkpoint. Received: {str(weights)!r}"
            )
        opened.append(one)
    labels = labels_of(options.weights, [one.weights.source for one in opened])
    return [
        Viewer(
            label,
            weights,
            one.weights.source,
            one.prepared,
            _scores(one.weights.source),
            one.class_names,
        )
        for label, weights, one in zip(labels, options.weights, opened)
    ]


def _scores(source):
    """Return what makes logits scores: softmax, or the network's own activation."""
    from kmlp.predicting.classifying import softmax

    activation = getattr(source, "head_activation", None)
    if activation in (None, "softmax"):
        return softmax
    import keras

    def _activated(logits):
        return keras.ops.convert_to_numpy(keras.activations.get(activation)(logits))

    return _activated


def _class(viewer, asked):
    """Return the number of the asked class, `None` for the network's choice."""
    if asked is None:
        return None
    names = viewer.class_names
    if asked in names:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < len(names):
        return int(asked)
    import difflib

    near = difflib.get_close_matches(asked, names, 3, cutoff=0.3) or names[:3]
    raise InputError(
        f"{viewer.label} has no such class: pass a name, such as {', '.join(near)}, "
        f"or a number of 0 to {len(names) - 1}. Received: --class {asked}"
    )


def _check_maps(viewer, layer):
    from kmlp.analysis.maps import find_map

    if not hasattr(viewer.source, "layers"):
        raise InputError(
            "A SavedModel does not show its maps: pass the .keras checkpoint, or "
            "--method gradient, smoothgrad or integrated. "
            f"Received: --method cam of {viewer.weights!r}"
        )
    find_map(viewer.source, layer)


def _explain(method, viewer, pixels, of_class, options):
    from kmlp.analysis import saliency

    function = {
        "gradient": saliency.gradient,
        "smoothgrad": saliency.smooth_grad,
        "integrated": saliency.integrated_gradients,
        "cam": saliency.class_activation_map,
    }[method]
    values = {
        name: getattr(options, name)
        for name, goes in GOES_WITH.items()
        if goes == method
    }
    if method == "integrated":
        prepared = viewer.prepared
        black = -np.asarray(prepared.mean) / np.asarray(prepared.std)
        values["baseline"] = 0.0 if options.baseline == "mean" else black
    values["batch_size"] = options.batch_size
    values = {name: value for name, value in values.items() if value is not None}
    found = function(viewer.source, pixels, of_class, **values)
    if not (np.isfinite(found.maps).all() and np.isfinite(found.logits).all()):
        raise RunError(
            "The weights give values that are not finite: they are damaged, or trained "
            f"to divergence. Received: {viewer.weights!r}",
        )
    if method == "integrated":
        worst = np.abs(found.gap / np.where(found.change == 0, np.inf, found.change))
        print(
            f"{viewer.label}: integrated gradients miss up to {worst.max():.1%} of the "
            f"logit's change ({found.steps.max()} steps)",
            flush=True,
        )
    return found


def _column(viewer, pixels, method, found):
    from kmlp.plots.saliency_sheet import Explained

    scores = viewer.scores(found.logits)
    words = []
    for row, explained in zip(scores, found.classes):
        best = int(row.argmax())
        text = f"{viewer.class_names[best]} {row[best]:.0%}"
        if explained != best:
            text += f"\n(for {viewer.class_names[explained]} {row[explained]:.0%})"
        words.append(text)
    layer = f", {found.layer}" if found.layer else ""
    return Explained(
        title=f"{viewer.label}\n{METHODS[method]}{layer}",
        pictures=viewer.picture(pixels),
        saliency=found,
        words=tuple(words),
    )
