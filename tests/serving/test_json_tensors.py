"""The server's JSON: rows, columns, bytes, and what is refused."""

import json

import numpy as np
import pytest

from kmlp.serving import json_tensors
from kmlp.serving.json_tensors import COLUMNAR, ROW

ONE = {"x": np.dtype("float32")}
TWO = {"x": np.dtype("float32"), "s": np.dtype(object)}


def read(request, inputs=ONE):
    return json_tensors.read_request(json.dumps(request), lambda signature: inputs)


def texts(*values):
    return np.array(values, object)


@pytest.mark.parametrize("form", [ROW, COLUMNAR])
def test_requests_come_back(form):
    tensors = {
        "x": np.random.default_rng(0).normal(size=(2, 3)).astype("float32"),
        "s": texts(b"\xff\x00", b"text"),
    }
    text = json_tensors.write_request(tensors, form, "name")
    signature, found, read_form = json_tensors.read_request(text, lambda name: TWO)
    assert (signature, read_form) == ("name", form)
    for key, value in tensors.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


def test_the_formats_as_they_are_written_by_hand():
    b64 = {"b64": "AAE="}
    bare = texts(b"\0\1", b"plain")
    strings = {"s": np.dtype(object)}
    for request in (
        {"instances": [b64, "plain"]},
        {"instances": [{"s": b64}, {"s": "plain"}]},
        {"inputs": [b64, "plain"]},
        {"inputs": {"s": [b64, "plain"]}},
    ):
        signature, tensors, _ = read(request, strings)
        assert signature is None
        np.testing.assert_array_equal(tensors["s"], bare)
    assert read({"inputs": b64}, strings)[1]["s"] == b"\0\1"
    assert read({"inputs": []})[1]["x"].shape == (0,)
    ((_, tensors, _),) = [read({"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]})]
    np.testing.assert_array_equal(tensors["x"], np.float32([[1, 2], [3, 4.5]]))


@pytest.mark.parametrize(
    ("request_", "inputs", "message"),
    [
        ([], ONE, "must be an object"),
        ({}, ONE, "Received: neither"),
        ({"inputs": 1, "instances": [1]}, ONE, "either"),
        ({"instances": []}, ONE, "not empty"),
        ({"instances": {"x": 1}}, ONE, "a list"),
        ({"instances": [1, {"x": 1}]}, ONE, "a mixture"),
        ({"instances": [{"y": 1}]}, ONE, "Received: y in entry 0"),
        ({"instances": [1]}, TWO, "Bare values go with one input"),
        ({"inputs": {"x": 1}}, TWO, "Received: no s"),
        ({"instances": [[1], [1, 2]]}, ONE, "equally long"),
        ({"instances": [[1], 1]}, ONE, "equally long"),
        ({"instances": ["1"]}, ONE, "a number"),
        ({"instances": [True]}, ONE, "a number"),
        ({"instances": [None]}, ONE, "a number"),
        ({"instances": [1.5]}, {"x": np.dtype("int32")}, "an integer"),
        ({"instances": [1]}, {"x": np.dtype(object)}, "a string"),
        ({"instances": [{"b64": "%%%"}]}, {"x": np.dtype(object)}, "no base64"),
        ({"signature_name": 3, "instances": [1]}, ONE, "must be text"),
    ],
)
def test_what_the_server_refuses(request_, inputs, message):
    with pytest.raises(ValueError, match=rf"{message}.*"):
        read(request_, inputs)


def test_what_is_no_json():
    with pytest.raises(ValueError, match="no JSON"):
        json_tensors.read_request("{", lambda signature: ONE)


def test_answers():
    names, scores = texts("é".encode(), b"b"), np.float32([0.1, 1 / 3])
    write = json_tensors.write_answer
    assert json.loads(write({"classes": names}, ROW)) == {"predictions": ["é", "b"]}
    assert json.loads(write({"classes": names}, COLUMNAR)) == {"outputs": ["é", "b"]}
    assert json.loads(write({"raw_bytes": texts(b"\xff")}, ROW)) == {
        "predictions": [{"b64": "/w=="}]
    }
    both = {"classes": names, "scores": scores}
    rows = json.loads(write(both, ROW))["predictions"]
    assert [row["classes"] for row in rows] == ["é", "b"]
    for form in (ROW, COLUMNAR):
        found = json_tensors.read_answer(write(both, form), ["classes", "scores"])
        assert found["classes"].tolist() == ["é", "b"]
        np.testing.assert_array_equal(found["scores"].astype("float32"), scores)
    with pytest.raises(ValueError, match=r"same number of rows.*scores \(1,\)"):
        write({"classes": names, "scores": scores[:1]}, ROW)
    with pytest.raises(ValueError, match="at least 1"):
        write({"scores": scores[:0]}, ROW)


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '{"outputs": {"y": 1}}'])
def test_what_is_no_answer(text):
    with pytest.raises(ValueError, match="no answer with a, b"):
        json_tensors.read_answer(text, ["a", "b"])
