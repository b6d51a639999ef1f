"""ONNX files and OpenVINO models: equal to the model, in every precision and batch."""

import builtins
import shutil

import artifacts
import cases
import numpy as np
import pytest
import shipped

import kmlp
from kmlp.artifacts import opening, origin
from kmlp.artifacts.locating import locate
from kmlp.errors import InputError, RunError

SMALL = "resmlp_local"


def write(form, model, folder, **options):
    """An artifact of a form, `"onnx"` or `"openvino"`."""
    pytest.importorskip(form)
    if form == "onnx":
        pytest.importorskip("tf2onnx")
        return kmlp.export.onnx(model, folder / "m.onnx", **options)
    return kmlp.export.openvino(model, folder / "m", **options)


def opened(path):
    return opening.runner(*locate(path))


BOTH = pytest.mark.parametrize("form", ["onnx", "openvino"])


@BOTH
@pytest.mark.parametrize("case", cases.spread(cases.CASES))
def test_outputs_equal_the_trained_models(case, form, tmp_path):
    model = artifacts.built(case)
    path = write(form, model, tmp_path)
    run = opened(path)
    for batch in (1, 3):
        images = cases.images(model, batch)
        (output,) = run(images).values()
        error = cases.relative_error(output, artifacts.expected(case, images))
        assert error < 1e-5
    known, audit = origin.read(path), kmlp.export.audit(path)
    assert audit.fully_connected_only == (case in cases.FULLY_CONNECTED)
    assert known["audit"]["operations"] == dict(audit)
    assert known["equality"]["relative_difference"] < 1e-5
    assert known["weights_sha256"] == origin.weights_sha256(model)


@BOTH
@pytest.mark.parametrize("case", cases.few(["convmlp", "msmlp", "smlpnet"], "convmlp"))
def test_no_convolution_is_left_where_none_is_wanted(case, form, tmp_path):
    model = artifacts.built(case)
    path = write(form, model, tmp_path, dense="all")
    audit, known = kmlp.export.audit(path), origin.read(path)
    assert audit.convolution_free
    assert known["audit"]["convolution_free"]
    assert known["dense"]["choice"] == "all"
    images = cases.images(model, 2)
    (output,) = opened(path)(images).values()
    assert cases.relative_error(output, artifacts.expected(case, images)) < 1e-5


@BOTH
def test_names_and_open_sizes(form, tmp_path):
    model = artifacts.built("convmlp", input_shape=(None, None, 3))
    named = [f"class {n}" for n in range(10)]
    path = write(form, model, tmp_path, class_names=named)
    run = opened(path)
    assert run.input_shape == (None, None, None, 3)
    assert list(run.output_shapes) == ["output_0"]
    assert origin.read(path)["class_names"] == named
    for size in ((32, 48), (64, 32)):
        images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        expected = cases.run(model, images, training=False)
        assert cases.relative_error(run(images)["output_0"], expected) < 1e-5
    if form == "openvino":
        names = (path / "assets.extra/class_names.txt").read_text().splitlines()
        assert (path.name, names) == ("1", named)


@pytest.mark.parametrize(("precision", "points"), [("bfloat16", 2), ("int8", 3)])
def test_a_trained_network_keeps_its_answers(precision, points, tmp_path):
    model, (images, _) = shipped.network(), shipped.photos()
    data = {"representative_data": images[::2]} if precision == "int8" else {}
    path = write("openvino", model, tmp_path, precision=precision, **data)
    (found,) = opened(path)(images).values()
    error = cases.relative_error(found, shipped.logits())
    assert 1e-5 < error < 0.5  # it is another precision, and the same network
    assert shipped.top1(found) >= shipped.top1(shipped.logits()) - points
    assert origin.read(path)["artifact"]["precision"] == precision


def test_a_saved_model_computes_in_bfloat16(tmp_path):
    model, (images, _) = shipped.network(), shipped.photos()
    path = kmlp.export.saved_model(model, tmp_path, precision="bfloat16")
    run = opened(path)
    assert run.input_dtype == np.float32
    found = run(images)["output_0"]
    assert found.dtype == np.float32
    assert 1e-4 < cases.relative_error(found, shipped.logits()) < 0.05
    assert shipped.top1(found) >= shipped.top1(shipped.logits()) - 2
    full = kmlp.export.saved_model(model, tmp_path / "full")
    data = "variables/variables.data-00000-of-00001"
    sizes = [(p / data).stat().st_size for p in (path, full)]
    assert sizes[0] < 0.55 * sizes[1]
    assert all(layer.compute_dtype == "float32" for layer in model.layers)


@BOTH
def test_what_was_changed_or_damaged_is_told(form, tmp_path):
    path = write(form, artifacts.built(SMALL), tmp_path)
    assert origin.verify(path) == origin.read(path)["artifact_sha256"]
    file = path if form == "onnx" else path / "model.bin"
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    )
    with pytest.raises(RunError, match="not what was written"):
        origin.verify(path)
    file.write_bytes(content[:middle])
    with pytest.raises(InputError, match="cannot be read"):
        opened(path)
    if form == "openvino":
        (path / "model.xml").write_text("<net")
        with pytest.raises(InputError, match="cannot be read"):
            kmlp.export.audit(path)


def test_an_onnx_file_that_reads_others_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = write("onnx", artifacts.built(SMALL), tmp_path)
    other = tmp_path / "other.onnx"
    saved = onnx.load(path)
    onnx.save(saved, other, save_as_external_data=True, size_threshold=0)
    with pytest.raises(InputError, match="other files"):
        opened(other)


@BOTH
def test_a_missing_runtime_is_named(form, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] in ("onnx", "openvino", "tf2onnx"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    export = kmlp.export.onnx if form == "onnx" else kmlp.export.openvino
    with pytest.raises(ImportError, match=rf"kmlp\[{form}\]"):
        export(artifacts.built(SMALL), tmp_path / "m.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "precision"),
        ({"precision": "int8"}, "representative_data"),
        ({"representative_data": np.zeros((2, 32, 48, 3))}, "representative_data"),
        ({"precision": "int8", "representative_data": np.zeros((2, 9, 9, 3))}, "shape"),
        ({"class_names": ["a"]}, "class names"),
    ],
)
def test_bad_options_of_openvino(options, words, tmp_path):
    pytest.importorskip("openvino")
    with pytest.raises(InputError, match=words):
        kmlp.export.openvino(artifacts.built(SMALL), tmp_path / "m", **options)
    assert not [*tmp_path.iterdir()]


def test_a_file_is_not_replaced_unasked(tmp_path):
    path = write("onnx", artifacts.built(SMALL), tmp_path)
    with pytest.raises(FileExistsError, match="overwrite"):
        kmlp.export.onnx(artifacts.built(SMALL), path)
    kmlp.export.onnx(artifacts.built(SMALL), path, overwrite=True)
    shutil.copy(path, tmp_path / "copy.onnx")
    assert origin.verify(tmp_path / "copy.onnx")
