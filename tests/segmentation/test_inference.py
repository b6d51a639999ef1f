"""Whole, sliding, multi-scale and mirrored inference, worked by hand."""

import numpy as np
import pytest

from kmlp.segmentation import segment


class Brightness:
    """Two logits per pixel: its first channel and minus that; any size, or one."""

    def __init__(self, size=None):
        self.input_shape = (None, *(size or (None, None)), 3)
        self.seen = []

    def __call__(self, pictures):
        self.seen.append(pictures.shape[1:3])
        first = pictures[..., :1]
        return np.concatenate([first, -first], axis=-1)


class Position(Brightness):
    """The column within what the model is shown."""

    def __call__(self, pictures):
        columns = np.arange(pictures.shape[2], dtype="float32")
        return np.broadcast_to(columns[None, None, :, None], (*pictures.shape[:3], 1))


def picture(height, width, seed=0):
    draws = np.random.default_rng(seed)
    return draws.normal(size=(height, width, 3)).astype("float32")


@pytest.mark.parametrize("size", [(7, 11), (20, 8), (6, 6)])
def test_windows_cover_everything(size):
    image, model = picture(*size), Brightness((6, 6))
    found = segment(model, image, mode="slide", stride=(4, 3))
    assert found.shape == (*size, 2)
    # Every window sees the same pixel alike: the average is the pixel itself.
    assert np.allclose(found[..., 0], image[..., 0], atol=1e-6)
    assert set(model.seen) == {(6, 6)}


def test_overlapping_windows_are_averaged():
    found = segment(Position((2, 4)), picture(2, 6), mode="slide", stride=(2, 2))
    # Windows at columns 0 and 2; columns 2 and 3 are 2, 3 of the first, 0, 1 of the
    # second.
    assert found[0, :, 0].tolist() == [0, 1, 1, 2, 2, 3]


def test_the_last_window_ends_with_the_picture():
    found = segment(Position((1, 4)), picture(1, 5), mode="slide", stride=(1, 3))
    assert found[0, :, 0].tolist() == [0, 0.5, 1.5, 2.5, 3]


def test_windows_larger_than_the_picture():
    found = segment(Brightness(), picture(3, 5), mode="slide", window=(8, 8))
    assert np.allclose(found[..., 0], picture(3, 5)[..., 0])


def test_whole_fits_into_a_fixed_size():
    image = np.repeat(np.arange(8, dtype="float32")[None, :, None], 4, axis=0)
    image = np.repeat(image, 3, axis=2)
    model = Brightness((8, 8))
    found = segment(model, image)
    assert model.seen == [(8, 8)]
    assert np.allclose(found[..., 0], image[..., 0], atol=1e-6)


def test_scales_and_mirror_average_softmaxes():
    image, model = picture(8, 12), Brightness()
    found = segment(model, image, scales=(1.0, 0.5), flip=True)
    assert model.seen == [(8, 12), (8, 12), (4, 6), (4, 6)]
    assert np.allclose(found.sum(-1), 1, atol=1e-6)
    single = segment(model, image, flip=True)
    wanted = 1 / (1 + np.exp(-2 * image[..., 0]))
    assert np.allclose(single[..., 0], wanted, atol=1e-6)


def test_the_mirror_is_mirrored_back():
    found = segment(Position(), picture(1, 4), flip=True)
    assert np.allclose(found, 1.0)  # one class: its softmax
    logits = [segment(Position(), picture(1, 4))[0, :, 0].tolist()]
    assert logits == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "tiles"}, "mode='tiles'"),
        ({"mode": "slide"}, "window"),
        ({"scales": (0,)}, "scales"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        segment(Brightness(), picture(4, 4), **arguments)
