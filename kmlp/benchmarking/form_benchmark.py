"""All forms of one network in one run: they are made, timed in turns and compared."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import profile
from kmlp.artifacts import onnx_file, openvino_model
from kmlp.artifacts.running import load_saved_model, repeatable_tflite
from kmlp.benchmarking.devices import answering, inference
from kmlp.benchmarking.findings import ALTERNATIVES, FORMS, LOW, Benchmark, verdicts
from kmlp.benchmarking.int8_reasons import why_not_twice
from kmlp.benchmarking.measuring import (
    CLOCKS,
    PEAKS,
    Contender,
    matmul_peak,
    measure,
    processor,
    random_images,
)
from kmlp.benchmarking.published_runs import RUNS
from kmlp.console import first_line, quiet
from kmlp.errors import InputError, check_known
from kmlp.typing import PathLike

GROUPS = {
    "all": tuple(FORMS),
    "xla": ("train-xla", "merged-xla"),
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "openvino": ("openvino", "openvino-bfloat16", "openvino-int8"),
    "bfloat16": ("saved-model-bfloat16", "openvino-bfloat16"),
    "pytorch": ALTERNATIVES,
}
QUANTIZATIONS = {form: form for form in GROUPS["tflite"]} | {"float32": None}
# SavedModels and OpenVINO models -> their precision.
SAVED_MODELS = {"saved-model": "float32", "saved-model-bfloat16": "bfloat16"}
OPENVINO = {"openvino": "float32"} | {f"openvino-{p}": p for p in ("bfloat16", "int8")}
CALIBRATION_IMAGES = 4


def chosen_forms(names: Iterable[str]) -> list[str]:
    """Return the forms that names of forms and groups stand for, in the tables' order.

    Raises:
        InputError: If a name is unknown; the message names the nearest.
    """
    chosen: set[str] = set()
    for name in names:
        check_known(name, FORMS | GROUPS, "form")
        chosen.update(GROUPS.get(name, (name,)))
    return [form for form in FORMS if form in chosen]


class Network:
    """A network whose forms are made when they are asked for.

    Args:
        model: Model in its train form.
        folder: Folder for what is exported.
        threads: Threads of the TFLite interpreter and of PyTorch.
        input_shape: Shape `(H, W, C)`, for models of unknown height and width.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: PathLike,
        threads: int,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.folder = Path(folder)
        self.threads = threads
        shape = model.inputs[0].shape[1:]
        self.input_shape = tuple(shape if input_shape is None else input_shape)

    def contender(self, form: str, batch: int) -> Contender:
        """Return a form as a contender.

        Raises:
            ImportError: If PyTorch is not installed.
            InputError: If the form does not exist of this network.
            RuntimeError: If TFLite refuses the network.
        """
        images = random_images(batch, self.input_shape)
        run: Callable[[], Any]
        if form in QUANTIZATIONS:
            run = repeatable_tflite(self.tflite_file(form, batch), self.threads)
        elif form in ALTERNATIVES:
            run = self._torch_run(form, images)
        elif form in SAVED_MODELS:
            run = answering(self._saved_model(SAVED_MODELS[form]), images)
        elif form in OPENVINO:
            run = functools.partial(self._openvino(OPENVINO[form]).run, images)
        elif form == "onnx":
            run = functools.partial(self._onnx.run, images)
        else:
            model = self.model if form.startswith("train") else self.merged
            run = answering(inference(model, form.endswith("xla")), images)
        trained = form in ("train", "train-xla", "torch")
        macs = self.macs if trained else self.merged_macs
        peak = PEAKS[LOW.get(form, "float32")]
        return Contender(FORMS[form], batch, macs, run, peak)

    @functools.cached_property
    def merged(self) -> keras.Model:
        """Return the inference form, float32."""
        from kmlp.export.groundwork import inference_form

        return inference_form(self.model)

    @functools.cached_property
    def macs(self) -> int:
        """Return the train form's multiply-adds per image, at the timed size."""
        return profile(self.model, self.input_shape).macs

    @functools.cached_property
    def merged_macs(self) -> int:
        """Return the merged form's multiply-adds per image."""
        return profile(self.merged, self.input_shape).macs

    def tflite_file(self, form: str, batch: int) -> Path:
        """Return the TFLite file of a precision, written once."""
        from kmlp.export.tflite import check_options, write_tflite

        file = self.folder / f"{batch}_{form}.tflite"
        if not file.exists():
            images = random_images(CALIBRATION_IMAGES, self.input_shape)
            options = check_options(
                self.merged, QUANTIZATIONS[form], images, batch, self.input_shape
            )
            write_tflite(self.merged, file, **options)
        return file

    @functools.cache  # noqa: B019, a network lives as long as its benchmark
    def _saved_model(self, precision):
        from kmlp.export.saved_model import saved_model

        path = self.folder / f"saved_model_{precision}"
        path = saved_model(self.merged, path, warmup=False, precision=precision)
        return load_saved_model(path).tensors

    @functools.cache  # noqa: B019
    def _openvino(self, precision):
        from kmlp.export.runtimes import openvino

        data = random_images(CALIBRATION_IMAGES, self.input_shape)
        path = openvino(
            self.merged,
            self.folder / f"openvino_{precision}",
            precision=precision,
            representative_data=data if precision == "int8" else None,
            input_shape=self.input_shape,
        )
        return openvino_model.load(path, self.threads, precision)

    @functools.cached_property
    def _onnx(self):
        from kmlp.export.runtimes import onnx

        path = self.folder / "network.onnx"
        onnx(self.merged, path, input_shape=self.input_shape, overwrite=True)
        return onnx_file.load(path, self.threads)

    def _torch_run(self, form, images):
        """Return a call of the published network, of RepMLPNet's deployed form.

        Eagerly, its train form is timed too.
        """
        from kmlp.pytorch.counterparts import counterpart

        merges = type(self.model).__name__ == "RepMLPNet"
        if form == "torch-merged" and not merges:
            raise InputError(
                "only RepMLPNet was published with a merged form. "
                f"Received: {type(self.model).__name__}"
            )
        deployed = {"deploy": True} if merges and form != "torch" else {}
        network = counterpart(self.model, **deployed)
        return RUNS[form](network, images, self.threads, self.folder)


def benchmark(
    model: keras.Model,
    *,
    name: str | None = None,
    forms: Sequence[str] = tuple(FORMS),
    batches: Sequence[int] = (1, 8),
    rounds: int = 10,
    threads: int = 2,
    clock: str = "wall",
    input_shape: Sequence[int] | None = None,
    progress: Callable[[str], object] | None = None,
) -> Benchmark:
    """Time a network in all its forms.

    Args:
        model: Model in its train form. Variables that are all zero, as fresh biases
            are, are filled: graph optimisers remove what adds nothing.
        name: Name in the report; `None`: the model's.
        forms: Names from `FORMS`.
        batches: Batch sizes.
        rounds: Interleaved rounds.
        threads: Threads of the TFLite interpreter and of PyTorch; TensorFlow's are set
            by `use_threads`.
        clock: Clock, `"wall"`, or on a machine that others use `"cpu"`, for one thread.
        input_shape: Shape `(H, W, C)`, for models of unknown height and width.
        progress: Function that is called with a line about what is being done, an
            empty one at the end; or `None`.

    Raises:
        ImportError: If Keras is not on TensorFlow.
        InputError: If none of the forms exists of this network, or for another clock.
    """
    check_clock(clock, threads)
    import kmlp.export  # noqa: F401, says what it needs

    say = progress or (lambda line: None)
    _fill_zeros(model)
    with tempfile.TemporaryDirectory() as folder:
        network = Network(model, folder, threads, input_shape)
        contenders, missing = [], {}
        for form in forms:
            for batch in batches:
                say(f"making {FORMS[form]}, batch {batch}")
                try:
                    with quiet():
                        contenders.append(network.contender(form, batch))
                except (ImportError, ValueError, RuntimeError) as error:
                    missing[FORMS[form]] = first_line(error)
                    break
        peaks = []
        for precision, label in PEAKS.items():
            if precision == "float32" or any(c.peak == label for c in contenders):
                with contextlib.suppress(ImportError):  # then there are no shares of it
                    peaks.append(matmul_peak(precision, threads))
        if not contenders:
            raise InputError(
                "None of the forms exists of this network: "
                + "; ".join(f"{form}: {reason}" for form, reason in missing.items())
            )
        with quiet():  # XLA and the delegates announce themselves
            timings = measure(
                [*peaks, *contenders],
                rounds,
                lambda number: say(f"round {number} of {rounds}"),
                CLOCKS[clock],
            )
            found = verdicts(timings, local=_has_local_branches(model))
            reasons = {
                v.batch: why_not_twice(
                    [network.tflite_file(f, v.batch) for f in ("float32", "int8")],
                    threads,
                    CLOCKS[clock],
                )
                for v in found
                if v.faster == FORMS["int8"] and not v.met
            }
    say("")
    return Benchmark(
        name=name or model.name,
        input_shape=network.input_shape,
        threads=threads,
        clock=clock,
        timings=tuple(timings),
        verdicts=found,
        reasons=reasons,
        missing=missing,
        processor=processor(),
    )


def check_clock(clock: str, threads: int) -> None:
    """Raise `InputError` where a clock does not tell the speed of the threads."""
    if clock not in CLOCKS or (clock == "cpu" and threads != 1):
        raise InputError(
            "The clock is 'wall', or 'cpu' for one thread, as threads that wait for "
            f"each other use CPU too. Received: {clock!r}, threads={threads}"
        )


def _has_local_branches(model):
    """Return whether merging puts convolutions into fully connected layers."""
    return any(getattr(layer, "local_kernels", None) for layer in model.layers)


def _fill_zeros(model):
    """Give random values to trainable variables that are all zero."""
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if not np.any(np.asarray(weight)):
            weight.assign(generator.normal(0, 0.02, weight.shape))
