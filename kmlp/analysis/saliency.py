"""Find which pixels a class hangs on, by gradients and class-activation maps.

All of them differentiate a class's logit; a `head_activation` is left out. Each takes
any classifier on TensorFlow, JAX or PyTorch.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.analysis.gradients import differentiated, logits_of
from kmlp.analysis.maps import checked_images, find_map
from kmlp.errors import InputError

# One class for all images or one for each; `None` for the model's own choice.
Classes = int | Sequence[int] | np.ndarray | None

BATCH = 8  # images, or points on the way to one, that are differentiated at once
STEPS = (64, 192, 576)  # thrice as many have the former ones' middles among theirs
TOLERANCE = 0.01  # of the logit's change, that they may miss


@dataclasses.dataclass(frozen=True)
class Saliency:
    """The evidence for a class at each place of some images.

    Attributes:
        maps: Maps `(N, H, W)`, float32; of a class-activation map `(N, h, w)`, the
            sizes of the layer's map, which covers the image.
        signed: Whether values below zero speak against the class; else all are
            magnitudes.
        classes: Class `(N,)` of each image that is explained.
        logits: Logits `(N, K)` of the images.
        values: Values `(N, H, W, C)` that the maps sum up, with signs and per channel;
            `None` of a class-activation map.
        gap: Error `(N,)` of integrated gradients: by how much their sum misses the
            change of the logit from the baseline to the image, in logits.
        change: Change `(N,)` of the logit from the baseline to the image.
        steps: Number `(N,)` of steps that integrated gradients took for each image.
        layer: Name of the layer that a class-activation map is of.
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


def gradient(
    model: Any, images: np.ndarray, classes: Classes = None, *, batch_size: int = BATCH
) -> Saliency:
    """Differentiate a class's logit by the pixels.

    Args:
        model: Built `keras.Model` from images to classes, train form or merged, or a
            function of a tensor of images to a tensor of logits.
        images: Images `(N, H, W, C)` as the model takes them.
        classes: One for all images or one for each; `None` for the model's own choice.
        batch_size: Images at a time.

    Returns:
        A `Saliency`; its maps are the largest magnitude over the channels.

    Raises:
        InputError: If it is no classifier, images do not fit it, or there is no such
            class.

    Reference: Simonyan, Vedaldi and Zisserman (2014), Sect. 3.
    """
    run = _Run(model, images, batch_size)
    return _magnitudes(*run.at_images(classes))


def smooth_grad(
    model: Any,
    images: np.ndarray,
    classes: Classes = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Saliency:
    """Average the gradients at noisy copies of an image.

    Args:
        model, images, classes, batch_size: As in `gradient`; the class is chosen by
            the image without noise.
        samples: Number of noisy copies.
        noise: Deviation of the normal noise, for the range of the image's values; the
            paper takes 0.1 to 0.2.
        seed: Seed of the noise, which depends on it and on the image's place alone.

    Returns:
        A `Saliency`; its maps are the largest magnitude over the channels of the mean.

    Raises:
        InputError: As in `gradient`; or if there is no sample, or noise below zero.

    Reference: Smilkov et al. (2017), SmoothGrad, Sect. 3.
    """
    _check_count(samples=samples)
    if not 0 <= noise < math.inf:
        raise InputError(
            "`noise` is a share of the image's range, 0 or more, such as 0.15. "
            f"Received: noise={noise!r}"
        )
    run = _Run(model, images, batch_size)
    _, logits, chosen = run.at_images(classes)
    deviations = noise * np.ptp(run.images, axis=(1, 2, 3))
    draws = [np.random.default_rng((seed, index)) for index in range(len(run.images))]

    def _point(index, _):
        drawn = draws[index].standard_normal(run.images.shape[1:], "float32")
        return run.images[index] + deviations[index] * drawn

    places = [(i, n) for i in range(len(run.images)) for n in range(samples)]
    mean = (run.sums(_point, places, chosen) / samples).astype("float32")
    return _magnitudes(mean, logits, chosen)


def integrated_gradients(
    model: Any,
    images: np.ndarray,
    classes: Classes = None,
    *,
    steps: int | None = None,
    baseline: Any = 0.0,
    batch_size: int = BATCH,
) -> Saliency:
    """Integrate the gradient on the straight way from a baseline to the image.

    Times the difference to the baseline it shares out, over all pixels, by how much
    the logit changes on that way; the integral is a sum at the middles of equal parts,
    and the `gap` says how much is missed by that.

    Args:
        model, images, classes, batch_size: As in `gradient`.
        steps: Number of parts; `None` for the first of `STEPS` (64, 192, 576), image by
            image, that misses no more than 1 % of the change (`TOLERANCE`), or the
            last.
        baseline: Where the way begins, an image that says nothing: a number, one value
            per channel or an array of the images' shape, in the values that the model
            takes; 0 is the mean of the training set where images are normalised,
            black is `-mean / std`.

    Returns:
        A `Saliency`; its maps are sums over the channels, with signs.

    Raises:
        InputError: As in `gradient`; or if there is no step, or a baseline of another
            shape.

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
    _, logits, chosen = run.at_images(classes)
    _, before, _ = run.at_images(chosen, start)

    rows = np.arange(len(chosen))
    change = logits[rows, chosen] - before[rows, chosen]

    def _point(index, way):
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
        sums += run.sums(_point, places, chosen)
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
        classes=chosen,
        logits=logits,
        values=values,
        gap=gap,
        change=change,
        steps=parts,
    )


def class_activation_map(
    model: Any,
    images: np.ndarray,
    classes: Classes = None,
    *,
    layer: str | None = None,
    batch_size: int = BATCH,
) -> Saliency:
    """Sum a map's channels, weighed by how the class's logit hangs on them: Grad-CAM.

    The weight of a channel is the mean of the logit's derivative over its positions.
    Where a norm per channel (BatchNorm, Aff), the mean over positions and a Dense
    follow the map, that is CAM: the weights are the Dense's, times the norm's scale,
    over the number of positions; the norm's shift, which is the same everywhere, is
    left out. Grad-CAM draws what is above zero.

    Args:
        model: Built functional or Sequential `keras.Model`.
        images, classes, batch_size: As in `gradient`.
        layer: Level of the pyramid or a layer's name, as `kmlp.analysis.maps` has it;
            `None` for the pyramid's last level, or else the last map.

    Returns:
        A `Saliency`; its maps have signs, and the size of the layer's.

    Raises:
        InputError: As in `gradient`; or if there is no such map; the message names
            those that would do.

    References: Selvaraju et al. (2017), Grad-CAM, eq. 1 and 2, Appendix A; Zhou et al.
    (2016), CAM, eq. 2.
    """
    found = find_map(model, layer)
    key, channels = id(found.tensor), found.tensor.shape[-1]
    logits, variables = logits_of(model)

    def _explained(shift, images, classes):
        seen = {key: None}
        # By something that is the same everywhere: its derivative is the sum of
        # those at all positions.
        changes = {key: lambda x: x + ops.cast(shift, x.dtype)}
        outputs = logits(images, changes=changes, seen=seen)
        chosen, classes = _chosen(outputs, classes)
        return chosen, (seen[key], outputs, classes)

    step = differentiated(_explained, variables)

    def _weighed(*arrays):
        sums, (values, outputs, chosen) = step(*arrays)
        weights = sums / math.prod(values.shape[1:3])
        return (weights * values).sum(-1), outputs, chosen

    images = checked_images(images)
    shift = np.zeros((len(images), 1, 1, channels), "float32")
    arrays = shift, images, _asked(classes, len(images))
    maps, outputs, chosen = _in_batches(_weighed, arrays, batch_size)
    _check_classes(classes, outputs)
    return Saliency(maps, True, chosen, outputs, layer=found.name)


class _Run:
    """The derivatives of a model's logits at images and at points near them."""

    def __init__(self, model, images, batch_size):
        self.images = checked_images(images)
        self.batch_size = batch_size
        function, variables = logits_of(model)

        def _explained(images, classes):
            outputs = function(images)
            chosen, classes = _chosen(outputs, classes)
            return chosen, (outputs, classes)

        self._step = differentiated(_explained, variables)

    def at_images(self, classes: Classes, images: Any = None) -> list[np.ndarray]:
        """Return gradients, logits and classes of the images, or of others instead."""
        images = self.images if images is None else images
        arrays = images, _asked(classes, len(images))
        found = _in_batches(self._step, arrays, self.batch_size)
        _check_classes(classes, found[1])
        return found

    def sums(
        self, point: Callable, places: Sequence[tuple], classes: np.ndarray
    ) -> np.ndarray:
        """Sum each image's gradients at `point(image, x)`, of places (image, x).

        In double precision; `places` may leave images out, whose sums are zero.
        """
        found = np.zeros(self.images.shape, "float64")
        for rows, batch in _batches(len(places), self.batch_size):
            owners = np.array([places[k][0] for k in batch])
            points = [point(*places[k]) for k in batch[:rows]]
            points += points[:1] * (len(batch) - rows)
            arrays = np.stack(points).astype("float32"), classes[owners]
            gradients, _ = self._step(*arrays)
            np.add.at(found, owners[:rows], gradients[:rows])
        return found


def _magnitudes(gradients, logits, classes):
    return Saliency(np.abs(gradients).max(-1), False, classes, logits, gradients)


def _chosen(logits, classes):
    """Return each image's logit of its class and that class; below 0: the likeliest."""
    if len(logits.shape) != 2:
        raise InputError(
            "Saliency is of one batch of logits (N, K). "
            f"Received: a shape of {tuple(logits.shape)}"
        )
    likeliest = ops.cast(ops.argmax(logits, axis=-1), "int32")
    classes = ops.where(classes < 0, likeliest, classes)
    # A class that does not exist selects nothing; the caller refuses it afterwards.
    marks = ops.cast(classes[:, None] == ops.arange(logits.shape[-1]), logits.dtype)
    return ops.sum(logits * marks, axis=-1), classes


def _asked(classes, count):
    """Return the classes asked for, `(N,)` int32, -1 where the model chooses."""
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
    count = logits.shape[-1]
    for one in () if classes is None else np.ravel(classes):
        if not 0 <= one < count:
            raise InputError(
                f"The model has classes 0 to {count - 1}. Received: classes={one}"
            )


def _check_count(**argument):
    ((name, value),) = argument.items()
    if not hasattr(value, "__index__") or value < 1:
        raise InputError(f"`{name}` is at least 1. Received: {name}={value!r}")


def _batches(count, size):
    """Yield `(rows that count, indices)`, all of one length: one graph serves all."""
    size = min(size, count)
    for start in range(0, count, size):
        batch = np.arange(start, min(start + size, count))
        yield len(batch), np.resize(batch, size)


def _in_batches(step, arrays, size):
    """Run a function of arrays batch by batch and join its results over the images."""
    parts = []
    for rows, batch in _batches(len(arrays[0]), size):
        found = keras.tree.flatten(step(*(array[batch] for array in arrays)))
        parts.append([part[:rows] for part in found])
    return [np.concatenate(part) for part in zip(*parts)]
