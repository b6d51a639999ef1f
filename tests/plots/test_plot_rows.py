"""Rows of FC kernels as images: what is in the figure."""

import cases
import numpy as np
import pytest
from looking import check_figure

from kmlp import plots
from kmlp.analysis.spatial import kernel_rows, spatial_kernels
from kmlp.plots.kernel_images import mosaic


def rows_of(case, **arguments):
    kernels = spatial_kernels(cases.build(case))
    return [kernel_rows(kernel, **arguments) for kernel in kernels]


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_title()]


def test_images_lie_as_their_positions_do():
    images = np.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    sheet = mosaic(images)
    assert sheet.shape == (2 * 3 - 1, 3 * 5 - 1)
    for row, column in np.ndindex(2, 3):
        part = sheet[3 * row : 3 * row + 2, 5 * column : 5 * column + 4]
        np.testing.assert_array_equal(part, images[row, column])
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, [4, 9]]).all()
    assert np.isfinite(sheet).sum() == images.size


def test_lines_of_an_axis_lie_side_by_side():
    matrix = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(mosaic(matrix[:, None, None, :]), matrix)
    np.testing.assert_array_equal(mosaic(matrix[None, :, :, None]), matrix.T)


@pytest.mark.parametrize("case", ["repmlpnet", "smlpnet", "resmlp_class_mlp"])
def test_a_panel_per_layer_on_a_scale_of_its_own(case, tmp_path):
    kernels = rows_of(case)
    figure = plots.rows(kernels)
    check_figure(figure, tmp_path)
    for axes, kernel in zip(panels(figure), kernels, strict=True):
        magnitudes = np.abs(kernel.images)
        scale = np.percentile(magnitudes, 99.8)
        assert axes.get_title() == f"{kernel.label}\n±{scale:.2g}"
        (image,) = axes.images
        np.testing.assert_allclose(image.get_array() * scale, mosaic(kernel.images))
        assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
    assert figure.axes[-1].get_ylabel() == "weight / number above"


def test_the_title_says_which_rows():
    kernels = rows_of("repmlpnet")[1:3]
    title = plots.rows(kernels).get_suptitle().replace("\n", " ")
    assert title.endswith("central 4×6 positions; share-set 0")


def test_zeros_are_drawn():
    kernels = rows_of("resmlp")[:1]
    kernels[0].images[:] = 0
    (axes,) = panels(plots.rows(kernels))
    assert not np.nan_to_num(axes.images[0].get_array()).any()


def test_nothing_is_not_drawn():
    with pytest.raises(ValueError, match="at least one KernelRows"):
        plots.rows([])
