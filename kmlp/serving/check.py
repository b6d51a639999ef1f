"""Check an artifact as TensorFlow Serving would load and ask it.

Each check raises an error, or returns what it saw.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kmlp.artifacts import origin, saved_model_file
from kmlp.artifacts.agreement import difference
from kmlp.artifacts.locating import SAVED_MODEL, locate
from kmlp.console import quiet
from kmlp.errors import InputError
from kmlp.export.offer import DETECTION
from kmlp.export.saved_model import CLASS_NAMES, EXTRA
from kmlp.export.serving_signatures import (
    BYTES,
    CLASSIFY,
    DEFAULT,
    FEATURES,
    IMAGE_BYTES,
    class_maps,
    detections,
    prepared,
    prepared_pictures,
)
from kmlp.export.warmup import FILE, OPEN_SIZE, read_warmup
from kmlp.predicting.classifying import softmax
from kmlp.preprocessing import DensePreprocessing, preprocessing_of
from kmlp.serving import json_tensors, native_loader
from kmlp.serving.hostile import hostile_images
from kmlp.serving.session import PREDICT, Session, reason
from kmlp.typing import PathLike

# The most records that a server replays.
MOST_RECORDS = 1000
BATCH = 2
# Of answers by other signatures or in batches of other sizes, over the largest.
TOLERANCE = 1e-5
# By which hostile bytes may raise the peak; what they claim is thirty times as much.
MEGABYTES = 250
# Seconds in which another process must have loaded and asked an artifact.
SECONDS = 600
_NOT_ENCODED = "no signature takes encoded images"


class NotRunError(Exception):
    """A check that cannot run here; it says why."""


class Artifact:
    """A session and a request for each of its signatures.

    Args:
        folder: Folder of one version.

    Attributes:
        dense: Preparation, the `DensePreprocessing` of a detector or segmenter, else
            `None`.
        pictures: Encoded pictures.
        requests: Inputs of each signature by name.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        saved_model_file.check(self.folder)
        self.session = Session(folder)
        self.dense = DensePreprocessing.from_origin(origin.read(folder))
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

    def ask(
        self, signature: str, tensors: dict[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return a signature's answer, by default to its request."""
        # Decoders talk of what is wrong with an image.
        with quiet(everything=True):
            return self.session.predict(tensors or self.requests[signature], signature)

    def encoded(self) -> list[str]:
        """Return the signatures that take encoded images."""
        return [n for n, asked in self.requests.items() if IMAGE_BYTES in asked]


def _pictures(count):
    """Return JPEGs and PNGs of noise over colours, in turns, of different shapes."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(count):
        shape = (48 + 32 * index, 90 - 20 * index, 3)
        noise = rng.integers(0, 64, shape) + rng.integers(0, 192, 3)
        pixels = tf.constant(noise.astype("uint8"))
        encode = tf.io.encode_png if index % 2 else tf.io.encode_jpeg
        pictures.append(encode(pixels).numpy())
    return pictures


def _native(artifact):
    """Load and ask it in a process without TensorFlow's Python, and compare."""
    plan, asked = {}, {}
    for name, tensors in artifact.requests.items():
        signature = artifact.session.signatures[name]
        plan[name] = [
            {key: info.name for key, info in side.items()}
            for side in (signature.inputs, signature.outputs)
        ]
        asked |= {f"{name}/{key}": value for key, value in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        requests, answers = (Path(folder, f"{n}.npz") for n in ("asked", "answered"))
        native_loader.save(requests, asked, plan)
        command = [sys.executable, native_loader.__file__]
        done = subprocess.run(
            [*command, str(artifact.folder), str(requests), str(answers)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        last = "".join(done.stderr.splitlines()[-1:])
        _require(not done.returncode, f"ended with {done.returncode}: {last}")
        told = json.loads(done.stdout.splitlines()[-1])
        if told["not_run"]:
            raise NotRunError(told["not_run"])
        _require(not told["failure"], reason(RuntimeError(told["failure"])))
        _require(not told["python"], f"{told['python']} were imported")
        found, _ = native_loader.load(answers)
    for name in plan:
        for key, value in artifact.ask(name).items():
            answer = found[f"{name}/{key}"]
            numbers = value.dtype.kind == "f"
            same = np.array_equal(answer, value, equal_nan=numbers)
            same = same and answer.dtype == value.dtype
            _require(same, f"{name}: {key} differs from the session's")
    return f"TensorFlow {told['version']}, {len(plan)} signatures, equal to the bit"


def _methods(artifact):
    for name, signature in artifact.session.signatures.items():
        _require(
            signature.method_name == PREDICT, f"{name} has {signature.method_name}"
        )
    _require(DEFAULT in artifact.session.signatures, f"there is no {DEFAULT}")
    return PREDICT


def class_names(artifact: Any) -> str:
    """Compare the file of names with the graph, or with the origin of dense models."""
    known, file = artifact.dense, artifact.folder / EXTRA / CLASS_NAMES
    if known is None and CLASSIFY not in artifact.session.signatures:
        return f"no {CLASSIFY}"
    if known is not None and not file.is_file():
        return f"none, {EXTRA}/{CLASS_NAMES} is missing"
    names = tuple(file.read_text(encoding="utf-8").splitlines())
    if known is None:
        found, place = artifact.ask(CLASSIFY), "graph"
        written = [names[index] for index in found["indices"].reshape(-1)]
        same = written == [name.decode() for name in found["classes"].reshape(-1)]
    else:
        same, place = known.class_names in (None, names), "origin"
    _require(same, f"the {place} and {EXTRA}/{CLASS_NAMES} disagree")
    numbers = "" if known is None else "; the graph has numbers"
    return f"{len(names)}, the same in the {place} and in {EXTRA}{numbers}"


def _warmup(artifact):
    file = artifact.folder / EXTRA / FILE
    if not file.is_file():
        return f"none, {EXTRA}/{FILE} is missing"
    requests = read_warmup(file)
    _require(len(requests) <= MOST_RECORDS, f"{len(requests)} are too many to replay")
    for request in requests:
        tensors = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
        _check_finite(artifact.ask(request.model_spec.signature_name, tensors))
    asked = {request.model_spec.signature_name for request in requests}
    missing = sorted(artifact.session.signatures.keys() - asked)
    _require(not missing, f"none for {', '.join(missing)}")
    return f"{len(requests)} replayed, {file.stat().st_size / 1e3:.0f} kB"


def _formats(artifact):
    """Ask each signature in both formats, in the server's words and back."""
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


def _batches(artifact):
    worst = 0.0
    for name, tensors in artifact.requests.items():
        whole = artifact.ask(name)
        # Two equally sure detections may change places.
        numbers = [
            key
            for key, value in whole.items()
            if value.dtype.kind == "f" or "boxes" in whole
        ]
        for row in range(BATCH):
            part = {key: value[row : row + 1] for key, value in tensors.items()}
            rows = {key: whole[key][row : row + 1] for key in numbers}
            # NaN must come through, which `max` would drop.
            worst = np.maximum(worst, difference(artifact.ask(name, part), rows))
    _require(worst <= TOLERANCE, f"answers differ by {worst:.1e}")
    return f"largest difference {worst:.1e}"


def _no_images(artifact):
    signatures = artifact.encoded()
    for name in signatures:
        none = {IMAGE_BYTES: np.array([], object)}
        for key, value in artifact.ask(name, none).items():
            _require(len(value) == 0, f"{name} gives {value.shape} of {key}")
    return "an answer without rows" if signatures else _NOT_ENCODED


def _evaluation(artifact):
    """Compare encoded images with the same, prepared outside of the artifact."""
    if BYTES not in artifact.session.signatures:
        return f"no {BYTES}"
    if not (origin.read(artifact.folder) or {}).get("preprocessing"):
        raise NotRunError("no origin tells the preprocessing")
    known, pictures = artifact.dense, tf.constant(artifact.pictures)
    if known is None:
        images = prepared(pictures, preprocessing_of(artifact.folder))
    else:
        images, shapes, sizes = prepared_pictures(pictures, known)
    (name,) = artifact.requests[DEFAULT]
    expected = artifact.ask(DEFAULT, {name: images.numpy()})
    if known is not None:
        answer = detections if known.task == DETECTION else class_maps
        found = {key: tf.constant(value) for key, value in expected.items()}
        found = answer(found, shapes, sizes)
        expected = {key: value.numpy() for key, value in found.items()}
    worst = difference(artifact.ask(BYTES), expected)
    allowed = 0 if known is None else TOLERANCE
    _require(worst <= allowed, f"{BYTES} and {DEFAULT} differ by {worst:.1e}")
    if known is None:
        return f"{BYTES} equals {DEFAULT} on prepared images to the bit"
    return f"{BYTES} equals {DEFAULT} on prepared pictures, to {worst:.1e}"


def _scores(artifact):
    if CLASSIFY not in artifact.session.signatures:
        return f"no {CLASSIFY}"
    encoded = CLASSIFY in artifact.encoded()
    outputs = artifact.ask(BYTES if encoded else DEFAULT, artifact.requests[CLASSIFY])
    (outputs,) = outputs.values()
    found = artifact.ask(CLASSIFY)
    _require(bool((np.diff(found["scores"]) <= 0).all()), "scores are not sorted")
    worst = {}
    for kind, scores in (("softmax", softmax(outputs)), ("outputs", outputs)):
        best = -np.sort(-scores, axis=1)[:, : found["scores"].shape[1]]
        chosen = np.take_along_axis(scores, found["indices"], axis=1)
        expected = {"best": best, "chosen": chosen}
        worst[kind] = difference(dict.fromkeys(expected, found["scores"]), expected)
    kind = min(worst, key=worst.get)
    _require(
        worst[kind] <= TOLERANCE, f"scores are not those of {BYTES}: {worst[kind]:.1e}"
    )
    return f"the {kind}{' of the outputs' * (kind == 'softmax')}, to {worst[kind]:.1e}"


def _pyramid(artifact):
    if FEATURES not in artifact.session.signatures:
        return f"no {FEATURES}"
    maps = artifact.ask(FEATURES)
    _check_finite(maps)
    sizes = (f"{key} {'x'.join(map(str, maps[key].shape[1:]))}" for key in sorted(maps))
    return ", ".join(sizes)


def _hostile(artifact):
    """Require that each fails its request and leaves the next answer what it was."""
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
    found = f"{len(images)} kinds refused, the next request answered as before"
    if peak is None:
        return f"{found}; how much memory that takes, this system does not tell"
    grown = _peak_megabytes() - peak
    _require(grown < MEGABYTES, f"memory grew by {grown:.0f} MB")
    return found


def _peak_megabytes():
    """Return this process's peak; `None` where the system does not tell: Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes, or kilobytes


def _require(condition, failure):
    if not condition:
        raise AssertionError(failure)


def _check_finite(answer):
    for key, value in answer.items():
        finite = value.dtype.kind != "f" or bool(np.isfinite(value).all())
        _require(finite, f"{key} is not finite")


CHECKS = {
    "loads in C++ alone": _native,
    "method names": _methods,
    "class names": class_names,
    "warm-up records": _warmup,
    "JSON, rows and columns": _formats,
    "one at a time as in a batch": _batches,
    "no images": _no_images,
    "as in evaluation": _evaluation,
    "scores": _scores,
    "the pyramid": _pyramid,
    "hostile bytes": _hostile,
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: What was checked.
        failure: What is wrong, or `None`.
        detail: What was seen, or why nothing was.
        run: Whether it could be checked.
    """

    what: str
    failure: str | None
    detail: str = ""
    run: bool = True


def check(folder: PathLike) -> Iterator[Finding]:
    """Check one version.

    Args:
        folder: Folder of a SavedModel, or of its versions, of which the newest is
            taken.

    Yields:
        A `Finding` for each check.

    Raises:
        InputError: If there is no SavedModel.
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
    for what, function in CHECKS.items():
        try:
            yield Finding(what, None, function(artifact))
        except NotRunError as error:
            yield Finding(what, None, f"not run: {error}", run=False)
        except Exception as error:
            yield Finding(what, reason(error))


def print_findings(findings: Iterable[Finding]) -> bool:
    """Print each finding when it is there; return whether none is a failure."""
    good = True
    for finding in findings:
        word = "FAIL" if finding.failure else "ok  " if finding.run else "--  "
        said = finding.detail if finding.failure is None else finding.failure
        print(f"{word}  {finding.what:<28} {said}", flush=True)
        good = good and finding.failure is None
    return good
