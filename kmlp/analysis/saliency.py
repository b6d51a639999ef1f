"""Which pixels a class hangs on: gradients, their averages, class-activation maps.

All of them differentiate a class's logit; a `head_activation` is left out. Each takes
any classifier on TensorFlow, JAX or PyTorch.
"""

import dataclasses
import math

import numpy as np
from keras import ops

from kmlp.analysis.gradients import differentiated, logits_of
from kmlp.analysis.maps import checked_images, find_map
from kmlp.errors import InputError

BATCH = 8  # images, or points on the way to one, that are differentiated at once
STEPS = (64, 192, 576)  # thrice as many have the former ones' middles among theirs
TOLERANCE = 0.01  # of the logit's change, that they may miss


@dataclasses.dataclass(frozen=True)
class Saliency:
    """How much each place of some images speaks for a class.

    Attributes:
        maps: `(N, H, W)` float32; of a class-activation map `(N, h, w)`, the sizes of
            the layer's map, which covers the image.
        signed: whether values below zero speak against the class; else all are
            magnitudes.
        classes: `(N,)`, the class of each image that is explained.
        logits: `(N, K)` of the images.
        values: `(N, H, W, C)` what the maps sum up, with signs and per channel;
            `None` of a class-activation map.
        gap: `(N,)` of integrated gradients: by how much their sum misses the change
            of the logit from the baseline to the image, in logits.
        change: `(N,)` that change.
        steps: `(N,)` of integrated gradients: the number of parts of each image.
        layer: of a class-activation map, the name of the layer.
    """

    maps: np.ndarray
    signed: bool
    classes: np.ndarray
    logits: np.ndarray
    values: np.ndarray | None = None
    gap: np.ndarray | None = None
    change: np.ndarray | None = None
    steps: np.ndarray | None = None
    layer: str | None = None


def gradient(model, images, classes=None, *, batch_size=BATCH):
    """The derivative of a class's logit by the pixels.

    Args:
        model: a built `keras.Model` from images to classes, train form or merged, or
            a function of a tensor of images to a tensor of logits.
        images: `(N, H, W, C)` as the model takes them.
        classes: one for all images or one for each; `None`: the model's own choice.
        batch_size: images at a time.

    Returns:
        A `Saliency`; its maps are the largest magnitude over the channels.

    Raises:
        InputError: no classifier, images that do not fit it, or no such class.

    Reference: Simonyan, Vedaldi and Zisserman (2014), Sect. 3.
    """
    run = _Run(model, images, batch_size)
    gradients, logits, classes = run.at_images(classes)
    return _magnitudes(gradients, logits, classes)


def smooth_grad(
    model,
    images,
    classes=None,
    *,
    samples=25,
    noise=0.15,
    seed=0,
    batch_size=BATCH,
):
    """The mean of the gradients at noisy copies of an image.

    Args:
        model, images, classes, batch_size: as in `gradient`; the class is chosen by
            the image without noise.
        samples: number of noisy copies.
        noise: deviation of the normal noise, for the range of the image's values; the
            paper takes 0.1 to 0.2.
        seed: an image's noise depends on it and on the image's place alone.

    Returns:
        A `Saliency`; its maps are the largest magnitude over the channels of the mean.

    Raises:
        InputError: as in `gradient`, no sample, or noise below zero.

    Reference: Smilkov et al. (2017), SmoothGrad, Sect. 3.
    """
    _check_count(samples=samples)
    if not 0 <= noise < math.inf:
        raise InputError(
            "`noise` is a share of the image's range, 0 or more, such as 0.15. "
            f"Received: noise={noise!r}"
        )
    run = _Run(model, images, batch_size)
    _, logits, classes = run.at_images(classes)
    deviations = noise * np.ptp(run.images, axis=(1, 2, 3))
    draws = [np.random.default_rng((seed, index)) for index in range(len(run.images))]

    def point(index, _):
        drawn = draws[index].standard_normal(run.images.shape[1:], "float32")
        return run.images[index] + deviations[index] * drawn

    places = [(i, n) for i in range(len(run.images)) for n in range(samples)]
    mean = (run.sums(point, places, classes) / samples).astype("float32")
    return _magnitudes(mean, logits, classes)


def integrated_gradients(
    model,
    images,
    classes=None,
    *,
    steps=None,
    baseline=0.0,
    batch_size=BATCH,
):
    """The gradient's integral on the straight way from a baseline to the image.

    Times the difference to the baseline it shares out, over all pixels, by how much
    the logit changes on that way; the integral is a sum at the middles of equal parts,
    and the `gap` says how much is missed by that.

    Args:
        model, images, classes, batch_size: as in `gradient`.
        steps: number of parts; `None`: for each image the first of `STEPS` (64, 192,
            576) that misses no more than 1 % of the change (`TOLERANCE`), or the last.
        baseline: where the way begins, an image that says nothing: a number, one value
            per channel or an array of the images' shape, in the values that the model
            takes; 0 is the mean of the training set where images are normalised,
            black is `-mean / std`.

    Returns:
        A `Saliency`; its maps are sums over the channels, with signs.

    Raises:
        InputError: as in `gradient`, no step, or a baseline of another shape.

    Reference: Sundararajan, Taly and Yan (2017), Sect. 3 and eq. 3; completeness is
    their Proposition 1.
    """
    if steps is not None:
        _check_count(steps=steps)
    run = _Run(model, images, batch_size)
    try:
        start = np.broadcast_to(np.asarray(baseline, "float32"), run.images.shape)
    except ValueError as error:
        raise InputError(
            "`baseline` is a number, a value per channel or an array of the images' "
            f"shape, {run.images.shape}. Received: shape {np.shape(baseline)}"
        ) from error
    _, logits, classes = run.at_images(classes)
    _, before, _ = run.at_images(classes, start)

    rows = np.arange(len(classes))
    change = logits[rows, classes] - before[rows, classes]

    def point(index, way):
        return start[index] + way * (run.images[index] - start[index])

    sums = np.zeros(run.images.shape, "float64")
    parts = np.zeros(len(rows), "int64")
    left = rows
    for count in STEPS if steps is None else (steps,):
        # Every third middle is one of the coarser parts, and already in the sum.
        places = [
            (i, (k + 0.5) / count)
            for i in left
            for k in range(count)
            if not parts[i] or k % 3 != 1
        ]
        sums += run.sums(point, places, classes)
        parts[left] = count
        means = (sums / parts[:, None, None, None]).astype("float32")
        values = (run.images - start) * means
        gap = values.sum((1, 2, 3), dtype="float64").astype("float32") - change
        left = np.flatnonzero(np.abs(gap) > TOLERANCE * np.abs(change))
        if not len(left):
            break
    return Saliency(
        maps=values.sum(-1),
        signed=True,
        classes=classes,
        logits=logits,
        values=values,
        gap=gap,
        change=change,
        steps=parts,
    )


def class_activation_map(model, images, classes=None, *, layer=None, batch_size=BATCH):
    """Grad-CAM: a map's channels, weighed by how the class's logit hangs on them.

    The weight of a channel is the mean of the logit's derivative over its positions.
    Where a norm per channel (BatchNorm, Aff), the mean over positions and a Dense
    follow the map, that is CAM: the weights are the Dense's, times the norm's scale,
    over the number of positions; the norm's shift, which is the same everywhere, is
    left out. Grad-CAM draws what is above zero.

    Args:
        model: a built functional or Sequential `keras.Model`.
        images, classes, batch_size: as in `gradient`.
        layer: a level of the pyramid or a layer's name, as `kmlp.analysis.maps` has
            it; `None`: the pyramid's last level, or else the last map.

    Returns:
        A `Saliency`; its maps have signs, and the size of the layer's.

    Raises:
        InputError: as in `gradient`, or no such map; the message names those that
            would do.

    References: Selvaraju et al. (2017), Grad-CAM, eq. 1 and 2, Appendix A; Zhou et al.
    (2016), CAM, eq. 2.
    """
    found = find_map(model, layer)
    key, channels = id(found.tensor), found.tensor.shape[-1]
    logits, variables = logits_of(model)

    def explained(shift, images, classes):
        seen = {key: None}
        # By something that is the same everywhere: its derivative is the sum of
        # those at all positions.
        changes = {key: lambda x: x + ops.cast(shift, x.dtype)}
        outputs = logits(images, changes=changes, seen=seen)
        chosen, classes = _chosen(outputs, classes)
        return chosen, (seen[key], outputs, classes)

    step = differentiated(explained, variables)
    images = checked_images(images)
    asked = _asked(classes, len(images))
    maps, parts = [], []
    for rows, batch in _batches(len(images), batch_size):
        shift = np.zeros((len(batch), 1, 1, channels), "float32")
        sums, further = step(shift, images[batch], asked[batch])
        values, outputs, chosen = (part[:rows] for part in further)
        weights = sums[:rows] / math.prod(values.shape[1:3])
        maps.append((weights * values).sum(-1))
        parts.append((outputs, chosen))
    logits, chosen = (np.concatenate(part) for part in zip(*parts))
    _check_classes(classes, logits)
    return Saliency(
        maps=np.concatenate(maps),
        signed=True,
        classes=chosen,
        logits=logits,
        layer=found.name,
    )


class _Run:
    """The derivatives of a model's logits at images and at points near them."""

    def __init__(self, model, images, batch_size):
        self.images = checked_images(images)
        self.batch_size = batch_size
        function, variables = logits_of(model)

        def explained(images, classes):
            outputs = function(images)
            chosen, classes = _chosen(outputs, classes)
            return chosen, (outputs, classes)

        self._step = differentiated(explained, variables)

    def at_images(self, classes, images=None):
        """`(gradients, logits, classes)` of the images, or of others in their place."""
        images = self.images if images is None else images
        asked = _asked(classes, len(images))
        parts = []
        for rows, batch in _batches(len(images), self.batch_size):
            gradients, (logits, chosen) = self._step(images[batch], asked[batch])
            parts.append([part[:rows] for part in (gradients, logits, chosen)])
        gradients, logits, chosen = (np.concatenate(part) for part in zip(*parts))
        _check_classes(classes, logits)
        return gradients, logits, chosen

    def sums(self, point, places, classes):
        """Each image's sum of the gradients at `point(image, x)`, of places (image, x).

        In double precision; `places` may leave images out, whose sums are zero.
        """
        found = np.zeros(self.images.shape, "float64")
        for rows, batch in _batches(len(places), self.batch_size):
            owners = np.array([places[k][0] for k in batch])
            points = [point(*places[k]) for k in batch[:rows]]
            points += points[:1] * (len(batch) - rows)
            points = np.stack(points).astype("float32")
            gradients, _ = self._step(points, classes[owners])
            np.add.at(found, owners[:rows], gradients[:rows])
        return found


def _magnitudes(gradients, logits, classes):
    return Saliency(
        maps=np.abs(gradients).max(-1),
        signed=False,
        classes=classes,
        logits=logits,
        values=gradients,
    )


def _chosen(logits, classes):
    """Each image's logit of its class, and that class; below 0: the likeliest."""
    if len(logits.shape) != 2:
        raise InputError(
            "Saliency is of one batch of logits (N, K). "
            f"Received: a shape of {tuple(logits.shape)}"
        )
    likeliest = ops.cast(ops.argmax(logits, axis=-1), "int32")
    classes = ops.where(classes < 0, likeliest, classes)
    # Of a class that there is not, nothing: it is said afterwards, on every backend.
    marks = ops.cast(classes[:, None] == ops.arange(logits.shape[-1]), logits.dtype)
    return ops.sum(logits * marks, axis=-1), classes


def _asked(classes, count):
    """`(N,)` int32, -1 where the model chooses."""
    if classes is None:
        return np.full(count, -1, "int32")
    asked = np.asarray(classes)
    if asked.dtype.kind not in "iu" or asked.shape not in ((), (count,)):
        raise InputError(
            f"`classes` is a class's number, one for each of the {count} images, or "
            f"None. Received: classes={classes!r}"
        )
    return np.broadcast_to(asked, count).astype("int32")


def _check_classes(classes, logits):
    wrong = [c for c in np.ravel(classes) if c is not None]
    wrong = [int(c) for c in wrong if not 0 <= c < logits.shape[-1]]
    if wrong:
        raise InputError(
            f"The model has classes 0 to {logits.shape[-1] - 1}. Received: "
            f"classes={wrong[0]}"
        )


def _check_count(**argument):
    ((name, value),) = argument.items()
    if not hasattr(value, "__index__") or value < 1:
        raise InputError(f"`{name}` is at least 1. Received: {name}={value!r}")


def _batches(count, size):
    """`(rows that count, indices)`, all of one length, so that a graph serves all."""
    size = min(size, count)
    for start in range(0, count, size):
        batch = np.arange(start, min(start + size, count))
        yield len(batch), np.resize(batch, size)
