"""Servers in this process that answer as TensorFlow Serving does, from a session."""

import concurrent.futures
import contextlib
import http.server
import json
import re
import threading
import time

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from kmlp.serving import json_tensors
from kmlp.serving.session import reason

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict)?")
_HTTP = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404}


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Served:
    """One version of one model under its name; `delay` seconds per answer."""

    def __init__(self, session, name, version=1, delay=0.0):
        self.session, self.name = session, name
        self.version, self.delay = version, delay

    def check(self, name, version):
        if name != self.name or version not in (None, 0, self.version):
            wanted = f"Specific({name}, {version})" if version else f"Latest({name})"
            message = f"Servable not found for request: {wanted}"
            raise Refusal(grpc.StatusCode.NOT_FOUND, message)

    def predict(self, tensors, signature):
        time.sleep(self.delay)
        try:
            return self.session.predict(tensors, signature)
        except (ValueError, LookupError) as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except tf.errors.InvalidArgumentError as error:
            message = f"{reason(error)}\n\t [[{{{{node somewhere}}}}]]"
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, message) from error


@contextlib.contextmanager
def rest(served):
    """Yields the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self._answer(self._status)

        def do_POST(self):
            self._answer(self._predict)

        def _status(self):
            self._model()
            state = {"version": str(served.version), "state": "AVAILABLE"}
            state["status"] = {"error_code": "OK", "error_message": ""}
            return json.dumps({"model_version_status": [state]})

        def _predict(self):
            self._model()
            text = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                signature, tensors, form = json_tensors.read_request(
                    text, served.session.inputs
                )
            except (ValueError, LookupError) as error:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
            return json_tensors.write_answer(served.predict(tensors, signature), form)

        def _model(self):
            found = _PATH.fullmatch(self.path)
            if found is None:
                message = f"Malformed request: {self.command} {self.path}"
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)
            served.check(found[1], found[2] and int(found[2]))

        def _answer(self, find):
            code = 200
            try:
                text = find()
            except Refusal as error:
                code, text = _HTTP[error.code], json.dumps({"error": str(error)})
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def prediction_service(served):
    """Yields host and port."""

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            tensors = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
            try:
                served.check(spec.name, spec.version.value)
                outputs = served.predict(tensors, spec.signature_name or None)
            except Refusal as error:
                context.abort(error.code, str(error))
            response = predict_pb2.PredictResponse()
            response.model_spec.CopyFrom(spec)
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
