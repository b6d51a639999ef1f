"""Write requests that a server replays before a version takes its first real one."""

from typing import Any

import tensorflow as tf

from kmlp.artifacts.agreement import OPEN_SIZE
from kmlp.console import quiet
from kmlp.typing import PathLike

FILE = "tf_serving_warmup_requests"
# One image at a time, and a few: other shapes run other kernels.
BATCHES = (1, 4)
# Of all records together; batches that would pass it are left out, the largest first.
LARGEST_FILE = 2**22


def check_available() -> None:
    """Raise `ImportError` where TensorFlow Serving's messages are missing."""
    _messages()


def write_warmup(file: PathLike, functions: dict[str, Any], name: str) -> None:
    """Write a record for each signature and batch of `BATCHES`.

    Numbers are zeros, which a record holds as one number whatever the shape; encoded
    images are small JPEGs and PNGs of one gradient. The same signatures give the same
    file.

    Args:
        file: Path to write.
        functions: Functions `{signature: tf.function}` with input signatures; one that
            leaves open more than the batch and an image's sizes gets no record.
        name: Name of the model, as it will be served.
    """
    predict_pb2, prediction_log_pb2 = _messages()
    left = LARGEST_FILE
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in BATCHES:
            for signature, function in functions.items():
                tensors = _tensors(function.input_signature, batch)
                if tensors is None:
                    continue
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for key, tensor in tensors.items():
                    request.inputs[key].CopyFrom(tensor)
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                record = log.SerializeToString(deterministic=True)
                left -= len(record)
                if left >= 0:
                    writer.write(record)


def read_warmup(file: PathLike) -> list[Any]:
    """Return the requests of a file, as `PredictRequest`s."""
    _, prediction_log_pb2 = _messages()
    with quiet():  # the reader talks of its buffer
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]


def gradient(size: int) -> tf.Tensor:
    """Return a picture of `size`, half as wide again as high, in uint8."""
    rows, columns = tf.meshgrid(tf.range(size), tf.range(size * 3 // 2), indexing="ij")
    colours = tf.stack([rows, columns, rows + columns], axis=2) * 255
    return tf.cast(colours // tf.reduce_max(colours // 255), tf.uint8)


def _tensors(specs, batch):
    """Return `{name: TensorProto}` of a request, `None` if its shape is not known."""
    tensors = {}
    for spec in specs:
        if spec.dtype == tf.string:
            picture = gradient(64)
            images = [tf.io.encode_jpeg(picture), tf.io.encode_png(picture)]
            images = [images[index % 2].numpy() for index in range(batch)]
            tensors[spec.name] = tf.make_tensor_proto(images, tf.string)
            continue
        shape = [batch, *spec.shape[1:]]
        if len(shape) == 4:
            shape[1:3] = [size or OPEN_SIZE for size in shape[1:3]]
        if None in shape:
            return None
        tensors[spec.name] = tf.make_tensor_proto(0, spec.dtype, shape)
    return tensors


def _messages():
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up records are TensorFlow Serving's messages: `pip install "
            f"tensorflow-serving-api`, or pass warmup=False. Received: {error}"
        ) from error
    return predict_pb2, prediction_log_pb2
