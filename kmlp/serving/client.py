"""Clients of a TensorFlow Serving: image files in, class names and scores out.

Both ask one image per request, so that a bad one fails alone.
"""

import dataclasses
import json
import urllib.parse

import numpy as np
import requests

from kmlp.errors import InputError
from kmlp.serving import json_tensors

IMAGE_BYTES = "image_bytes"
CLASSIFY, BYTES = "classify", "serving_bytes"
# The outputs of each signature for encoded images.
OUTPUTS = {CLASSIFY: ("classes", "indices", "scores"), BYTES: ("output_0",)}
START = "is one running there, and is this its port for"


@dataclasses.dataclass(frozen=True)
class Rest:
    """A client of the REST port, 8501 of the container.

    Attributes:
        url: URL such as `http://localhost:8501`.
        model: Name of the model at the server.
        version: Number of the version; `None`: the newest.
        timeout: Seconds in which an answer must come.
    """

    url: str
    model: str
    version: int | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                "A REST server is named by a URL such as http://localhost:8501. "
                f"Received: {self.url!r}"
            )

    def predict(self, image: bytes, signature: str = CLASSIFY) -> dict[str, np.ndarray]:
        """Return the outputs of a signature for one encoded image.

        Args:
            image: Bytes of a JPEG, PNG, WebP or BMP.
            signature: Name of the signature, `"classify"` or `"serving_bytes"`.

        Returns:
            Arrays by name, each without the batch.

        Raises:
            ConnectionError: If no server answers.
            TimeoutError: If it does not answer in time.
            LookupError: If it does not serve this model.
            InputError: If it refuses the image; the message is its own.
        """
        tensors = {IMAGE_BYTES: np.array([image], object)}
        request = json_tensors.write_request(tensors, json_tensors.COLUMNAR, signature)
        answer = self._fetch(f"{self._path()}:predict", request.encode())
        outputs = json_tensors.read_answer(answer, OUTPUTS[signature])
        return {name: value[0] for name, value in outputs.items()}

    def status(self) -> dict[str, str]:
        """Return the state of each version, such as `{"1": "AVAILABLE"}`."""
        answer = json.loads(self._fetch(self._path()))
        found = answer.get("model_version_status", [])
        return {entry["version"]: entry["state"] for entry in found}

    def _path(self):
        path = f"{self.url.rstrip('/')}/v1/models/{urllib.parse.quote(self.model)}"
        return path if self.version is None else f"{path}/versions/{self.version}"

    def _fetch(self, path, data=None):
        try:
            answer = requests.request(
                "GET" if data is None else "POST",
                path,
                data=data,
                headers={"Content-Type": "application/json"},
                timeout=self.timeout,
            )
        except requests.Timeout as error:
            raise _late(self.url, self.timeout) from error
        except requests.RequestException as error:
            raise _absent(self.url, "REST", error) from error
        if answer.ok:
            return answer.content.decode()
        try:
            told = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            told = _first(answer.text)[:200]
        if answer.status_code == 404:
            raise _unknown(self.url, self.model, told)
        if answer.status_code == 400:
            raise _refused(told)
        raise _failed(self.url, f"HTTP {answer.status_code}", told)


@dataclasses.dataclass(frozen=True)
class Grpc:
    """A client of the gRPC port, 8500 of the container.

    Attributes:
        address: Host and port, such as `localhost:8500`.
        model, version, timeout: As in `Rest`.
    """

    address: str
    model: str
    version: int | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise InputError(
                "A gRPC server is named by host and port, such as localhost:8500. "
                f"Received: {self.address!r}"
            )

    def predict(self, image: bytes, signature: str = CLASSIFY) -> dict[str, np.ndarray]:
        """Return the outputs of a signature, as `Rest.predict` does."""
        import grpc
        import tensorflow as tf

        predict_pb2, services = _apis()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        request.inputs[IMAGE_BYTES].CopyFrom(tf.make_tensor_proto([image]))
        # Answers of many classes pass gRPC's 4 MB; the server has no limit.
        unlimited = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        with grpc.insecure_channel(self.address, options=unlimited) as channel:
            service = services.PredictionServiceStub(channel)
            try:
                answer = service.Predict(request, timeout=self.timeout)
            except grpc.RpcError as error:
                raise self._refusal(error) from error
        outputs = {n: tf.make_ndarray(t)[0] for n, t in answer.outputs.items()}
        return {n: _as_text(outputs[n]) for n in OUTPUTS[signature]}

    def _refusal(self, error):
        code, told = error.code().name, error.details()
        known = {
            "UNAVAILABLE": _absent(self.address, "gRPC", told),
            "DEADLINE_EXCEEDED": _late(self.address, self.timeout),
            "NOT_FOUND": _unknown(self.address, self.model, told),
            "INVALID_ARGUMENT": _refused(told),
        }
        return known.get(code) or _failed(self.address, code, told)


def classes_and_scores(
    outputs: dict[str, np.ndarray], top: int | None = None
) -> list[tuple[str, float]]:
    """Return the names and scores of an answer, the best first.

    Args:
        outputs: Outputs from a client's `predict`; of `serving_bytes`, the numbers of
            the classes are their names and the outputs their scores.
        top: Number of classes at most; `None`: all there are.
    """
    if "classes" in outputs:
        names, scores = outputs["classes"], outputs["scores"]
    else:
        (scores,) = outputs.values()
        names = np.argsort(-scores, kind="stable")
        scores = scores[names]
    return [(str(name), float(score)) for name, score in zip(names, scores)][:top]


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


def _failed(place, code, told):
    return OSError(f"The server failed. Received: {place}, {code}: {told}")


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
