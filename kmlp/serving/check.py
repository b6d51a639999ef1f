"""The checks of `kmlp.serving.check`: each raises, or says what it saw."""

import contextlib
import dataclasses
import os

import numpy as np
import tensorflow as tf

from kmlp.artifacts import origin
from kmlp.artifacts.detection_difference import apart
from kmlp.artifacts.locating import SAVED_MODEL, locate
from kmlp.data.decode import centre_crop, normalise
from kmlp.errors import InputError
from kmlp.export.saved_model import CLASS_NAMES, EXTRA
from kmlp.export.serving_signatures import (
    BYTES,
    CLASSIFY,
    DEFAULT,
    FEATURES,
    IMAGE_BYTES,
)
from kmlp.export.warmup import FILE, OPEN_SIZE, read_warmup
from kmlp.preprocessing import preprocessing_of
from kmlp.serving import dense_checks, json_tensors
from kmlp.serving.dense_checks import TOLERANCE
from kmlp.serving.hostile import hostile_images
from kmlp.serving.session import PREDICT, Session, reason

# What a server replays at most.
MOST_RECORDS = 1000
BATCH = 2
# By which hostile bytes may raise the peak; what they claim is thirty times as much.
MEGABYTES = 250
_NOT_ENCODED = "no signature takes encoded images"


class Artifact:
    """A session and a request for each of its signatures."""

    def __init__(self, folder):
        self.folder = folder
        self.session = Session(folder)
        self.pictures = _pictures(BATCH)
        self.requests = {name: self._request(name) for name in self.session.signatures}

    def _request(self, signature):
        rng = np.random.default_rng(0)
        tensors = {}
        for name, info in self.session.signatures[signature].inputs.items():
            dtype = self.session.inputs(signature)[name]
            sizes = [dim.size for dim in info.tensor_shape.dim]
            shape = (BATCH, *(OPEN_SIZE if s < 0 else s for s in sizes[1:]))
            if dtype.kind == "O":
                tensors[name] = np.array(self.pictures, object)
            else:
                tensors[name] = rng.normal(size=shape).astype(dtype)
        return tensors

    def ask(self, signature, tensors=None):
        with _muted():  # decoders talk of what is wrong with an image
            return self.session.predict(tensors or self.requests[signature], signature)

    def encoded(self):
        """The signatures that take encoded images."""
        return [n for n, asked in self.requests.items() if IMAGE_BYTES in asked]


def _pictures(count):
    """JPEGs and PNGs of noise over colours, in turns, of different shapes."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(count):
        shape = (48 + 32 * index, 90 - 20 * index, 3)
        noise = rng.integers(0, 64, shape) + rng.integers(0, 192, 3)
        pixels = tf.constant(noise.astype("uint8"))
        encode = tf.io.encode_png if index % 2 else tf.io.encode_jpeg
        pictures.append(encode(pixels).numpy())
    return pictures


def methods(artifact):
    for name, signature in artifact.session.signatures.items():
        _require(
            signature.method_name == PREDICT, f"{name} has {signature.method_name}"
        )
    _require(DEFAULT in artifact.session.signatures, f"there is no {DEFAULT}")
    return PREDICT


def class_names(artifact):
    if dense_checks.preprocessing(artifact) is not None:
        return dense_checks.class_names(artifact)
    if CLASSIFY not in artifact.session.signatures:
        return f"no {CLASSIFY}"
    file = artifact.folder / EXTRA / CLASS_NAMES
    names = file.read_text(encoding="utf-8").splitlines()
    found = artifact.ask(CLASSIFY)
    told = [name.decode() for name in found["classes"].reshape(-1)]
    _require(
        told == [names[index] for index in found["indices"].reshape(-1)],
        f"the graph and {EXTRA}/{CLASS_NAMES} disagree",
    )
    return f"{len(names)}, the same in the graph and in {EXTRA}"


def warmup(artifact):
    file = artifact.folder / EXTRA / FILE
    if not file.is_file():
        return f"none, {EXTRA}/{FILE} is missing"
    requests = read_warmup(file)
    _require(len(requests) <= MOST_RECORDS, f"{len(requests)} are too many to replay")
    for request in requests:
        tensors = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
        for key, value in artifact.ask(
            request.model_spec.signature_name, tensors
        ).items():
            _finite(value, key)
    asked = {request.model_spec.signature_name for request in requests}
    missing = sorted(artifact.session.signatures.keys() - asked)
    _require(not missing, f"none for {', '.join(missing)}")
    return f"{len(requests)} replayed, {file.stat().st_size / 1e3:.0f} kB"


def formats(artifact):
    """Each signature asked in both formats, in the server's words and back."""
    session = artifact.session
    for name, tensors in artifact.requests.items():
        expected = artifact.ask(name)
        for form in (json_tensors.ROW, json_tensors.COLUMNAR):
            request = json_tensors.write_request(tensors, form, name)
            signature, read, form = json_tensors.read_request(request, session.inputs)
            answer = json_tensors.write_answer(artifact.ask(signature, read), form)
            answer = json_tensors.read_answer(answer, session.outputs(signature))
            for key, value in expected.items():
                if value.dtype.kind == "O":
                    value = np.vectorize(bytes.decode, otypes=[object])(value)
                equal = np.array_equal(answer[key].astype(value.dtype), value)
                _require(equal, f"{name}, {form}: {key} differs")
    return f"{len(artifact.requests)} signatures, equal to the bit, bytes as b64"


def batches(artifact):
    worst = 0.0
    for name, tensors in artifact.requests.items():
        whole = artifact.ask(name)
        for row in range(BATCH):
            part = {key: value[row : row + 1] for key, value in tensors.items()}
            rows = {key: value[row : row + 1] for key, value in whole.items()}
            worst = max(worst, _answers_apart(artifact.ask(name, part), rows))
    _require(worst <= TOLERANCE, f"answers differ by {worst:.1e}")
    return f"largest difference {worst:.1e}"


def no_images(artifact):
    signatures = artifact.encoded()
    for name in signatures:
        none = {IMAGE_BYTES: np.array([], object)}
        for key, value in artifact.ask(name, none).items():
            _require(len(value) == 0, f"{name} gives {value.shape} of {key}")
    return "an answer without rows" if signatures else _NOT_ENCODED


def evaluation(artifact):
    """Encoded images against the same, prepared outside of the artifact."""
    if BYTES not in artifact.session.signatures:
        return f"no {BYTES}"
    if not (origin.read(artifact.folder) or {}).get("preprocessing"):
        return "not checked: no origin that tells the preprocessing"
    if dense_checks.preprocessing(artifact) is not None:
        return dense_checks.evaluation(artifact)
    known = preprocessing_of(artifact.folder)
    images = [
        normalise(
            centre_crop(
                tf.constant(picture),
                known.image_size,
                known.test_crop,
                known.test_interpolation,
            ),
            known.mean,
            known.std,
        )
        for picture in artifact.pictures
    ]
    (name,) = artifact.requests[DEFAULT]
    expected = artifact.ask(DEFAULT, {name: np.stack(images)})
    found = artifact.ask(BYTES)
    worst = max(_difference(found[key], expected[key]) for key in expected)
    _require(worst == 0, f"{BYTES} and {DEFAULT} differ by {worst:.1e}")
    return f"{BYTES} equals {DEFAULT} on prepared images to the bit"


def scores(artifact):
    if CLASSIFY not in artifact.session.signatures:
        return f"no {CLASSIFY}"
    encoded = CLASSIFY in artifact.encoded()
    outputs = artifact.ask(BYTES if encoded else DEFAULT, artifact.requests[CLASSIFY])
    (outputs,) = outputs.values()
    found = artifact.ask(CLASSIFY)
    _require(bool((np.diff(found["scores"]) <= 0).all()), "scores are not sorted")
    worst = {}
    for kind, scores in (("softmax", _softmax(outputs)), ("outputs", outputs)):
        best = -np.sort(-scores, axis=1)[:, : found["scores"].shape[1]]
        chosen = np.take_along_axis(scores, found["indices"], axis=1)
        worst[kind] = max(
            _difference(found["scores"], best), _difference(found["scores"], chosen)
        )
    kind = min(worst, key=worst.get)
    _require(
        worst[kind] <= TOLERANCE, f"scores are not those of {BYTES}: {worst[kind]:.1e}"
    )
    return f"the {kind}{' of the outputs' * (kind == 'softmax')}, to {worst[kind]:.1e}"


def pyramid(artifact):
    if FEATURES not in artifact.session.signatures:
        return f"no {FEATURES}"
    maps = artifact.ask(FEATURES)
    for key, value in maps.items():
        _finite(value, key)
    sizes = (f"{key} {'x'.join(map(str, maps[key].shape[1:]))}" for key in sorted(maps))
    return ", ".join(sizes)


def hostile(artifact):
    """Each fails its request and leaves the next answer what it was."""
    signatures = artifact.encoded()
    if not signatures:
        return _NOT_ENCODED
    images = hostile_images(*artifact.pictures[:2])
    peak = _peak_megabytes()
    for name in signatures:
        before = artifact.ask(name)
        for kind, image in images.items():
            mixed = np.array([artifact.pictures[0], image], object)
            try:
                artifact.ask(name, {IMAGE_BYTES: mixed})
            except tf.errors.InvalidArgumentError:
                pass
            else:
                raise AssertionError(f"{name} answers to {kind}")
            after = artifact.ask(name)
            same = all(np.array_equal(after[key], before[key]) for key in before)
            _require(same, f"{name} answers otherwise after {kind}")
    grown = _peak_megabytes() - peak
    _require(grown < MEGABYTES, f"memory grew by {grown:.0f} MB")
    return f"{len(images)} kinds refused, the next request answered as before"


@contextlib.contextmanager
def _muted():
    """Without what libraries write to the process's standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _peak_megabytes():
    """Of this process; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _require(condition, failure):
    if not condition:
        raise AssertionError(failure)


def _finite(value, key):
    if value.dtype.kind == "f":
        _require(bool(np.isfinite(value).all()), f"{key} is not finite")


def _difference(actual, expected):
    """Largest difference over largest magnitude."""
    if not expected.size:
        return 0.0
    scale = max(np.abs(expected).max(), 1e-30)
    return float(np.abs(actual - expected).max() / scale)


def _answers_apart(actual, expected):
    if "boxes" in expected:  # of which two equally sure ones may change places
        return apart(actual, expected)
    floats = (key for key, value in expected.items() if value.dtype.kind == "f")
    return max((_difference(actual[key], expected[key]) for key in floats), default=0.0)


def _softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: was checked.
        failure: what is wrong, or `None`.
        detail: what was seen.
    """

    what: str
    failure: str | None
    detail: str = ""


def check(folder):
    """Checks one version.

    Args:
        folder: of a SavedModel, or of its versions, of which the newest is taken.

    Yields:
        A `Finding` for each check.

    Raises:
        InputError: there is no SavedModel.
    """
    folder, form = locate(folder)
    if form != SAVED_MODEL:
        raise InputError(f"Served is a SavedModel. Received: {str(folder)!r}, a {form}")
    try:
        artifact = Artifact(folder)
    except Exception as error:  # whatever it is, a server would not load it either
        yield Finding("loads in a session", reason(error))
        return
    names = sorted(artifact.session.signatures)
    seconds = f"{artifact.session.seconds:.1f} s: {', '.join(names)}"
    yield Finding("loads in a session", None, seconds)
    for what, function in (
        ("method names", methods),
        ("class names", class_names),
        ("warm-up records", warmup),
        ("JSON, rows and columns", formats),
        ("one at a time as in a batch", batches),
        ("no images", no_images),
        ("as in evaluation", evaluation),
        ("scores", scores),
        ("the pyramid", pyramid),
        ("hostile bytes", hostile),
    ):
        try:
            yield Finding(what, None, function(artifact))
        except Exception as error:
            yield Finding(what, reason(error))


def table(findings):
    """The findings as lines, each printed when it is there; whether all are good."""
    good = True
    for finding in findings:
        word = "ok  " if finding.failure is None else "FAIL"
        said = finding.detail if finding.failure is None else finding.failure
        print(f"{word}  {finding.what:<28} {said}", flush=True)
        good = good and finding.failure is None
    return good
