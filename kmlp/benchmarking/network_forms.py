"""The forms of a network that are timed, each as a contender."""

import difflib
import functools
from pathlib import Path

import numpy as np

from kmlp.benchmarking.measuring import Contender
from kmlp.console import quiet
from kmlp.errors import InputError

# Form -> label in the tables.
FORMS = {
    "train": "train form, graph",
    "train-xla": "train form, XLA",
    "merged": "merged, graph",
    "merged-xla": "merged, XLA",
    "saved-model": "SavedModel",
    "float32": "TFLite float32",
    "float16": "TFLite float16",
    "dynamic": "TFLite dynamic",
    "int8": "TFLite int8",
    "torch": "PyTorch",
    "torch-merged": "PyTorch, merged",
}
GROUPS = {
    "all": tuple(FORMS),
    "xla": ("train-xla", "merged-xla"),
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "pytorch": ("torch", "torch-merged"),
}
QUANTIZATIONS = {form: form for form in GROUPS["tflite"]} | {"float32": None}
CALIBRATION_IMAGES = 4


def chosen_forms(names):
    """The forms that names of forms and of groups stand for, in the tables' order.

    Raises:
        InputError: an unknown name; the message names the nearest.
    """
    chosen = set()
    for name in names:
        if name not in FORMS and name not in GROUPS:
            known = [*FORMS, *GROUPS]
            near = difflib.get_close_matches(name, known, n=2) or known
            raise InputError(
                f"Unknown form: choose {' or '.join(near)}. Received: {name!r}"
            )
        chosen.update(GROUPS.get(name, (name,)))
    return [form for form in FORMS if form in chosen]


class Network:
    """A network whose forms are made when they are asked for.

    Args:
        model: a `keras.Model` in its train form.
        folder: for what is exported.
        threads: of the TFLite interpreter and of PyTorch.
        input_shape: `(H, W, C)`, for models of unknown height and width.
    """

    def __init__(self, model, folder, threads, input_shape=None):
        self.model = model
        self.folder = Path(folder)
        self.threads = threads
        shape = model.inputs[0].shape[1:]
        self.input_shape = tuple(shape if input_shape is None else input_shape)

    def contender(self, form, batch):
        """A form as a `Contender`.

        Raises:
            ImportError: PyTorch is not installed.
            ValueError: the form does not exist of this network.
            RuntimeError: TFLite refuses the network.
        """
        label = FORMS[form]
        if form in QUANTIZATIONS:
            run = tflite_run(self.tflite_file(form, batch), self.threads)
        elif form in GROUPS["pytorch"]:
            run = self._torch_run(form, batch)
        elif form == "saved-model":
            run = saved_model_run(self._saved_model, self._images(batch))
        else:
            model = self.model if form.startswith("train") else self.merged
            run = keras_run(model, self._images(batch), form.endswith("xla"))
        trained = form in ("train", "train-xla", "torch")
        macs = self.macs if trained else self.merged_macs
        return Contender(label, batch, macs, run)

    @functools.cached_property
    def merged(self):
        """The inference form, float32."""
        from kmlp.export.saved_model import inference_form

        return inference_form(self.model)

    @functools.cached_property
    def macs(self):
        """Multiply-adds per image of the train form."""
        return self._macs(self.model)

    @functools.cached_property
    def merged_macs(self):
        """Multiply-adds per image of the merged form."""
        return self._macs(self.merged)

    def _macs(self, model):
        from kmlp.analysis.complexity import profile

        # Counted at the size that is timed.
        fixed = None not in model.inputs[0].shape[1:]
        return profile(model).macs if fixed else None

    def tflite_file(self, form, batch):
        """The TFLite file of a precision, written once."""
        from kmlp.export.tflite import check_options, write_tflite

        file = self.folder / f"{batch}_{form}.tflite"
        if not file.exists():
            options = check_options(
                self.merged,
                QUANTIZATIONS[form],
                self._images(CALIBRATION_IMAGES),
                batch,
                self.input_shape,
            )
            write_tflite(self.merged, file, **options)
        return file

    @functools.cached_property
    def _saved_model(self):
        import tensorflow as tf

        from kmlp.export.saved_model import write_saved_model

        folder = self.folder / "saved_model"
        write_saved_model(self.merged, folder)
        with quiet():
            return tf.saved_model.load(str(folder))

    def _torch_run(self, form, batch):
        from kmlp.pytorch.counterparts import counterpart

        merged = form == "torch-merged"
        if merged and type(self.model).__name__ != "RepMLPNet":
            raise InputError(
                "only RepMLPNet was published with a merged form. "
                f"Received: {type(self.model).__name__}"
            )
        network = counterpart(self.model, **({"deploy": True} if merged else {}))
        return torch_run(network, self._images(batch), self.threads)

    def _images(self, batch):
        shape = (batch, *self.input_shape)
        return np.random.default_rng(0).normal(size=shape).astype("float32")


def keras_run(model, images, jit_compile=False):
    """A Keras model's inference, in graph mode or compiled by XLA."""
    import tensorflow as tf

    call = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
    images = tf.constant(images)
    return lambda: call(images).numpy()


def saved_model_run(loaded, images):
    """What `serving_default` of a loaded SavedModel answers."""
    import tensorflow as tf

    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    images = {name: tf.constant(images)}

    def run():
        return {key: value.numpy() for key, value in function(**images).items()}

    # A signature does not keep alive the variables of its model.
    run.artifact = loaded
    return run


def tflite_run(file, threads):
    """A TFLite file run by `ai_edge_litert`."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    images = np.random.default_rng(0).normal(size=entry["shape"])
    images = images.astype(entry["dtype"])

    def run():
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()

    return run


def torch_run(network, images, threads):
    """A PyTorch network's inference."""
    import torch

    torch.set_num_threads(threads)
    network.eval()
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def run():
        with torch.inference_mode():
            return network(images)

    return run
