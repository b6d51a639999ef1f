"""Clients of a TensorFlow Serving: image files in, class names and scores out.

Both ask one image per request, so that a bad one fails alone.
"""

import dataclasses
import json
import urllib.error
import urllib.parse
import urllib.request

import numpy as np

from kmlp.errors import InputError
from kmlp.serving import json_tensors

IMAGE_BYTES = "image_bytes"
CLASSIFY, BYTES = "classify", "serving_bytes"
# What each signature for encoded images answers with.
OUTPUTS = {CLASSIFY: ("classes", "indices", "scores"), BYTES: ("output_0",)}
START = "is one running there, and is this its port for"


@dataclasses.dataclass(frozen=True)
class Rest:
    """Talks to the REST port, 8501 of the container.

    Attributes:
        url: such as `http://localhost:8501`.
        model: its name at the server.
        version: a number; `None`: the newest.
        timeout: in seconds, of an answer.
    """

    url: str
    model: str
    version: int | None = None
    timeout: float = 60.0

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                "A REST server is named by a URL such as http://localhost:8501. "
                f"Received: {self.url!r}"
            )

    def predict(self, image, signature=CLASSIFY):
        """The outputs of a signature for one encoded image.

        Args:
            image: bytes of a JPEG or PNG.
            signature: `"classify"` or `"serving_bytes"`.

        Returns:
            `{name: array}`, each without the batch.

        Raises:
            ConnectionError: no server answers.
            TimeoutError: not in time.
            LookupError: it does not serve this model.
            ValueError: it refuses the image; the message is its own.
        """
        tensors = {IMAGE_BYTES: np.array([image], object)}
        request = json_tensors.write_request(tensors, json_tensors.COLUMNAR, signature)
        answer = self._fetch(f"{self._path()}:predict", request.encode())
        outputs = json_tensors.read_answer(answer, OUTPUTS[signature])
        return {name: value[0] for name, value in outputs.items()}

    def status(self):
        """`{version: state}` of the model, such as `{"1": "AVAILABLE"}`."""
        answer = json.loads(self._fetch(self._path()))
        found = answer.get("model_version_status", [])
        return {entry["version"]: entry["state"] for entry in found}

    def _path(self):
        path = f"{self.url.rstrip('/')}/v1/models/{urllib.parse.quote(self.model)}"
        return path if self.version is None else f"{path}/versions/{self.version}"

    def _fetch(self, url, data=None):
        request = urllib.request.Request(
            url, data, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except TimeoutError as error:
            raise _late(self.url, self.timeout) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _late(self.url, self.timeout) from error
            raise _absent(self.url, "REST", error.reason) from error
        except OSError as error:
            raise _absent(self.url, "REST", error) from error

    def _refusal(self, error):
        text = error.read().decode(errors="replace")
        try:
            told = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            told = _first(text)[:200]
        if error.code == 404:
            return _unknown(self.url, self.model, told)
        if error.code == 400:
            return _refused(told)
        return OSError(
            f"The server failed. Received: {self.url}, HTTP {error.code}: {told}"
        )


@dataclasses.dataclass(frozen=True)
class Grpc:
    """Talks to the gRPC port, 8500 of the container.

    Attributes:
        address: such as `localhost:8500`.
        model, version, timeout: as of `Rest`.
    """

    address: str
    model: str
    version: int | None = None
    timeout: float = 60.0

    def __post_init__(self):
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise InputError(
                "A gRPC server is named by host and port, such as localhost:8500. "
                f"Received: {self.address!r}"
            )

    def predict(self, image, signature=CLASSIFY):
        """As `Rest.predict`."""
        import tensorflow as tf

        predict_pb2, services = _apis()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        request.inputs[IMAGE_BYTES].CopyFrom(tf.make_tensor_proto([image]))
        answer = self._call(
            lambda channel, **options: services.PredictionServiceStub(channel).Predict(
                request, **options
            )
        )
        outputs = {n: tf.make_ndarray(t)[0] for n, t in answer.outputs.items()}
        return {n: _as_text(outputs[n]) for n in OUTPUTS[signature]}

    def _call(self, send):
        import grpc

        # Answers of many classes pass gRPC's 4 MB; the server has no limit.
        unlimited = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        code = grpc.StatusCode
        with grpc.insecure_channel(self.address, options=unlimited) as channel:
            try:
                return send(channel, timeout=self.timeout)
            except grpc.RpcError as error:
                told = error.details()
                if error.code() == code.UNAVAILABLE:
                    raise _absent(self.address, "gRPC", told) from error
                if error.code() == code.DEADLINE_EXCEEDED:
                    raise _late(self.address, self.timeout) from error
                if error.code() == code.NOT_FOUND:
                    raise _unknown(self.address, self.model, told) from error
                if error.code() == code.INVALID_ARGUMENT:
                    raise _refused(told) from error
                raise OSError(
                    f"The server failed. Received: {self.address}, "
                    f"{error.code().name}: {told}"
                ) from error


def classes_and_scores(outputs, top=None):
    """`[(name, score)]` of an answer, the best first.

    Args:
        outputs: from a client's `predict`; of `serving_bytes`, the numbers of the
            classes are their names and the outputs their scores.
        top: how many at most; `None`: all there are.
    """
    if "classes" in outputs:
        pairs = zip(outputs["classes"], outputs["scores"])
    else:
        (scores,) = outputs.values()
        scores = np.asarray(scores)
        pairs = ((str(i), scores[i]) for i in np.argsort(-scores, kind="stable"))
    return [(name, float(score)) for name, score in pairs][:top]


def _as_text(array):
    if array.dtype.kind != "O":
        return array
    return np.array([value.decode() for value in array], object)


def _apis():
    try:
        from tensorflow_serving.apis import (
            predict_pb2,
            prediction_service_pb2_grpc,
        )
    except ImportError as error:
        raise ImportError(
            "gRPC needs TensorFlow Serving's messages: `pip install "
            f"tensorflow-serving-api`, or ask by REST. Received: {error}"
        ) from error
    return predict_pb2, prediction_service_pb2_grpc


def _absent(place, kind, told):
    return ConnectionError(
        f"No TensorFlow Serving answers: {START} {kind}? Received: {place} ({told})"
    )


def _late(place, timeout):
    return TimeoutError(
        "The server did not answer in time: wait longer with --timeout. "
        f"Received: nothing from {place} within {timeout:g} s"
    )


def _unknown(place, model, told):
    return LookupError(
        f"The server does not serve this. Received: model {model!r} at {place} ({told})"
    )


def _refused(told):
    return InputError(f"The server refuses the request. Received: {_first(told)}")


def _first(told):
    lines = (line.strip() for line in str(told).splitlines())
    return next((line for line in lines if line), "no reason")
