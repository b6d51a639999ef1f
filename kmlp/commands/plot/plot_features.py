"""`kmlp plot features`: draw what the stages of networks make of images."""

import numpy as np

from kmlp.commands.arguments import Parser, indices, positive
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

CHANNELS = 2


def add_features(parser: Parser) -> None:
    """Add the arguments of `kmlp plot features` and the job."""
    parser.description = (
        "Draws, for each image and network, maps of each stage: by "
        "default of the channels that vary most from place to place. Networks of one "
        "resolution are shown at four depths. As in ConvMLP's Fig. 4, which has "
        "--image-size 1024."
    )
    preparation = add_pictures(parser)
    add = parser.add_argument
    add(
        "--channels",
        type=positive,
        metavar="N",
        help=f"how many of each stage, the most varied (default: {CHANNELS})",
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
    add_output(parser, "features")
    parser.set_defaults(job=_features, preparation=preparation)


def _features(options):
    check_output(options)
    if None not in (options.channels, options.channel):
        raise InputError(
            "--channels says how many, --channel says which: leave one out. Received: "
            f"--channels {options.channels} --channel "
            f"{','.join(map(str, options.channel))}"
        )
    preparations = given(options)
    import_quietly()
    from kmlp.data.sources import images_of
    from kmlp.plots.feature_sheet import features

    images = images_of(options.images)
    viewers = _open(options, preparations)
    readable, inputs = look(viewers, images)
    shown = []
    with progress_bar(len(viewers), "network") as bar:
        for viewer, pixels in zip(viewers, inputs):
            shown.append(_shown(viewer, pixels, options))
            bar.update()
    known = [name for viewer in viewers for name in viewer.class_names or ()]
    write(features(shown, names=captions(readable, known)), options)
    finish(images, readable)


def _open(options, preparations):
    from kmlp.predicting.classifying import completed
    from kmlp.preprocessing import Preprocessing
    from kmlp.pretrained.creation import create_model

    for weights in options.weights:
        check_weights(weights, "Feature maps are")
    models, prepared = [], []
    for weights, values in zip(options.weights, preparations):
        size = values.get("image_size")
        model = create_model(
            weights=checkpoint_of(weights),
            input_shape=None if size is None else (size, size, 3),
            resolution=options.resolution,
        )
        _check_layers(model, options.layers)
        known = getattr(model, "preprocessing", None) or Preprocessing()
        models.append(model)
        prepared.append(completed(known, values, model.inputs[0].shape[1], weights))
    labels = labels_of(options.weights, models)
    return [
        Viewer(label, weights, model, one, class_names=one.class_names)
        for label, weights, model, one in zip(labels, options.weights, models, prepared)
    ]


def _check_layers(model, layers):
    from kmlp.analysis.maps import find_map

    for layer in layers or (None,):
        find_map(model, layer)


def _shown(viewer, pixels, options):
    from kmlp.analysis.features import BATCH, stage_maps, varied_channels
    from kmlp.plots.feature_sheet import Shown

    maps = stage_maps(
        viewer.source,
        pixels,
        layers=options.layers,
        batch_size=options.batch_size or BATCH,
    )
    for stage, values in maps.items():
        if not np.isfinite(values).all():
            raise RunError(
                f"{stage} has values that are not finite: the weights are damaged, or "
                f"trained to divergence. Received: {viewer.weights!r}",
            )
        highest = max(options.channel or (0,))
        if highest >= values.shape[-1]:
            raise InputError(
                f"{stage} of {viewer.label} has channels 0 to {values.shape[-1] - 1}. "
                f"Received: --channel {highest}"
            )
    count = options.channels or CHANNELS
    channels = {
        stage: options.channel or tuple(map(int, varied_channels(values, count)))
        for stage, values in maps.items()
    }
    return Shown(viewer.label, viewer.picture(pixels), maps, channels)
