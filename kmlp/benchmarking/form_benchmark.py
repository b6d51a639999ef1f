"""All forms of one network in one run: they are made, timed in turns and compared."""

import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import profile
from kmlp.artifacts.running import load_saved_model, repeatable
from kmlp.benchmarking.devices import answering, inference
from kmlp.benchmarking.findings import FORMS, Benchmark, verdicts
from kmlp.benchmarking.int8_reasons import why_not_twice
from kmlp.benchmarking.measuring import (
    CLOCKS,
    Contender,
    matmul_peak,
    measure,
    random_images,
)
from kmlp.console import first_line, quiet
from kmlp.errors import InputError, check_known
from kmlp.typing import PathLike

GROUPS = {
    "all": tuple(FORMS),
    "xla": ("train-xla", "merged-xla"),
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "pytorch": ("torch", "torch-merged"),
}
QUANTIZATIONS = {form: form for form in GROUPS["tflite"]} | {"float32": None}
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
            run = repeatable(self.tflite_file(form, batch), self.threads)
        elif form in GROUPS["pytorch"]:
            run = torch_run(self._torch(form), images, self.threads)
        elif form == "saved-model":
            run = answering(self._saved_model, images)
        else:
            model = self.model if form.startswith("train") else self.merged
            run = answering(inference(model, form.endswith("xla")), images)
        trained = form in ("train", "train-xla", "torch")
        macs = self.macs if trained else self.merged_macs
        return Contender(FORMS[form], batch, macs, run)

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

    @functools.cached_property
    def _saved_model(self):
        from kmlp.export.saved_model import write_saved_model

        folder = self.folder / "saved_model"
        write_saved_model(self.merged, folder)
        return load_saved_model(folder).tensors

    def _torch(self, form):
        from kmlp.pytorch.counterparts import counterpart

        merged = form == "torch-merged"
        if merged and type(self.model).__name__ != "RepMLPNet":
            raise InputError(
                "only RepMLPNet was published with a merged form. "
                f"Received: {type(self.model).__name__}"
            )
        return counterpart(self.model, **({"deploy": True} if merged else {}))


def torch_run(network: Any, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """Return a PyTorch network's inference of `(N, H, W, C)` images."""
    import torch

    torch.set_num_threads(threads)
    network.eval()
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return torch.inference_mode()(lambda: network(tensor))


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
        if not contenders:
            raise InputError(
                "None of the forms exists of this network: "
                + "; ".join(f"{form}: {reason}" for form, reason in missing.items())
            )
        with quiet():  # XLA and the delegates announce themselves
            timings = measure(
                [matmul_peak(), *contenders],
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
