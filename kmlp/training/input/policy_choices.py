"""The operations that policies choose from, and what a level means to each.

Names and ranges are timm's; those of RepMLPNet's policy know no upper end.
"""

from typing import NamedTuple

import tensorflow as tf

from kmlp.training.input import affine, image_operations

CUTOUT_GREY = (125, 122, 113)


class Layer(NamedTuple):
    """What was drawn for one operation on one image, as scalar tensors.

    Attributes:
        operation: int32, of the policy's operations; -1 leaves the image as it is.
        strength: the level as a share of the top level, float64.
        negative: whether a signed operation goes the other way.
        cubic: whether a geometric operation interpolates by 4 x 4 pixels.
        row, column: in 0…1, where a cutout lies, float64.
    """

    operation: tf.Tensor
    strength: tf.Tensor
    negative: tf.Tensor
    cubic: tf.Tensor
    row: tf.Tensor
    column: tf.Tensor

    def signed(self, largest):
        """`largest` or its negative, at full strength."""
        value = self.strength * largest
        return tf.where(self.negative, -value, value)

    def whole(self, largest):
        """`largest` at full strength, rounded down, int32."""
        return tf.cast(self.strength * largest, tf.int32)

    def factor(self):
        """0.1…1.9; at half strength it changes nothing."""
        return self.strength * 1.8 + 0.1

    def increasing_factor(self):
        """0.1…1.9, further from one with more strength."""
        return tf.maximum(1 + self.signed(0.9), 0.1)


# Operations of pixel values: image and layer -> image.
_PLAIN = {
    "AutoContrast": lambda image, layer: image_operations.autocontrast(image),
    "Equalize": lambda image, layer: image_operations.equalize(image),
    "Invert": lambda image, layer: image_operations.invert(image),
}


def _enhancements(suffix, factor):
    def enhancement(operation):
        return lambda image, layer: operation(image, factor(layer))

    return {
        f"Color{suffix}": enhancement(image_operations.color),
        f"Contrast{suffix}": enhancement(image_operations.contrast),
        f"Brightness{suffix}": enhancement(image_operations.brightness),
        f"Sharpness{suffix}": enhancement(image_operations.sharpness),
    }


def _posterize(image, layer):
    return image_operations.posterize(image, layer.whole(4))


def _posterize_increasing(image, layer):
    return image_operations.posterize(image, 4 - layer.whole(4))


def _solarize(image, layer):
    return image_operations.solarize(image, layer.whole(256))


def _solarize_increasing(image, layer):
    return image_operations.solarize(image, 256 - layer.whole(256))


def _solarize_add(image, layer):
    return image_operations.solarize_add(image, layer.whole(110))


def _solarize_add_limited(image, layer):
    return image_operations.solarize_add(image, tf.minimum(layer.whole(110), 128))


def _cutout(image, layer):
    size = tf.maximum(layer.whole(40), 2)
    return image_operations.cutout(image, size, layer.row, layer.column, CUTOUT_GREY)


# Layer, height and width -> matrix.
GEOMETRIC = {
    "Rotate": lambda layer, h, w: affine.rotation(layer.signed(30), h, w),
    "ShearX": lambda layer, h, w: affine.shear_x(layer.signed(0.3)),
    "ShearY": lambda layer, h, w: affine.shear_y(layer.signed(0.3)),
    "TranslateXRel": lambda layer, h, w: affine.translate_x(layer.signed(0.45) * w),
    "TranslateYRel": lambda layer, h, w: affine.translate_y(layer.signed(0.45) * h),
}

RAND = {
    **_PLAIN,
    **_enhancements("", Layer.factor),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add_limited,
}
RAND_INCREASING = {
    **_PLAIN,
    **_enhancements("Increasing", Layer.increasing_factor),
    "PosterizeIncreasing": _posterize_increasing,
    "SolarizeIncreasing": _solarize_increasing,
    "SolarizeAdd": _solarize_add_limited,
}
REPMLPNET = {**RAND, "SolarizeAdd": _solarize_add, "Cutout": _cutout}
