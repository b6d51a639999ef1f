"""Keras callbacks: from training straight to artifacts."""

import json
import math
import warnings
from typing import Any

import numpy as np

from kmlp.artifacts import agreement, origin
from kmlp.artifacts.agreement import difference
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.running import (
    batch_of,
    input_specs,
    load_saved_model,
    load_tflite,
    run_model,
)
from kmlp.atomic import check_writable, new_version
from kmlp.averages import Averages, average_pairs
from kmlp.errors import InputError, RunError, check_choice
from kmlp.export.groundwork import in_dense_form, in_float32, outside_strategy
from kmlp.export.offer import offer
from kmlp.export.saved_model import write_saved_model
from kmlp.export.tflite import check_options, write_tflite
from kmlp.keras_internals import MonitorCallback, choose_comparison
from kmlp.merging import DENSE

__all__ = ["MergeAndExport"]


class MergeAndExport(MonitorCallback):
    """Merges and exports the model, at the end of training or at each best epoch.

    Each export is one version folder under `directory` (`kmlp.export.saved_model`)
    that also holds `model.tflite` and `report.json`. Before it appears, the outputs
    of SavedModel and TFLite on sample images are compared with those of the model
    being trained; an artifact that fails is not published, and what was published
    before stays. A best epoch that fails is not counted as best.

    Where the optimizer averages the weights (`use_ema=True`), the averages are
    exported, beside `keras.callbacks.SwapEMAWeights` too, in either order. The
    averages are in the model only while it is copied; afterwards its weights are
    what they were, bit for bit. The monitored value is what Keras logs: without
    `SwapEMAWeights` it belongs to the weights that are not averaged. Callbacks that
    restore weights at the end (`EarlyStopping`) come before this one in the list.

    Args:
        directory: Folder of the versions.
        monitor: Name of the value that decides which epoch is best; may be `None` with
            `save="end"`.
        mode: Direction of `monitor`: `"auto"`, `"min"` or `"max"`, as
            `keras.callbacks.ModelCheckpoint`.
        save: Time of export: `"end"` (once, after training) or `"best"` (after each
            epoch that is better than the last one published).
        tflite: Whether a TFLite file is written too.
        quantize, representative_data: Options of the TFLite file, as in
            `kmlp.export.tflite`.
        tolerance: Largest allowed difference over largest magnitude. A quantised TFLite
            file is only reported, unless its outputs are not finite.
        sample: Images to compare on, as the model takes them; `None`: four random ones
            of the model's input shape, always the same. Models of unknown height and
            width need a sample, which also sets the size of the TFLite file.
        preprocessing: Preparation of the images, a `kmlp.preprocessing.Preprocessing`,
            for the signatures that take encoded ones.
        class_names: Names in the order of the outputs; `None`: those of
            `preprocessing`.
        verbose: Verbosity: 1 prints a line per export, 0 nothing.
        on_failure: Reaction where the check fails or an artifact cannot be written:
            `"warn"` (training must not be lost to it) or `"raise"`.
        dense: Convolutions that become fully connected layers, as in `kmlp.merge`.

    Attributes:
        exported: Paths of the published versions.
        report: Report of the last attempt: `published` (path or `None`), `epoch`,
            `monitored`, `averaged_weights`, `differences` by artifact, `tolerance`,
            `fully_connected_only` by artifact, and `failure` (message or `None`).

    Raises:
        ValueError, OSError: If arguments do not fit, when training begins.
    """

    best: Any

    def __init__(
        self,
        directory,
        monitor="val_accuracy",
        mode="auto",
        save="end",
        tflite=True,
        quantize=None,
        tolerance=1e-4,
        sample=None,
        verbose=1,
        *,
        representative_data=None,
        preprocessing=None,
        class_names=None,
        on_failure="warn",
        dense=None,
    ):
        check_choice(("end", "best"), save=save)
        check_choice(("auto", "min", "max"), mode=mode)
        check_choice(("warn", "raise"), on_failure=on_failure)
        check_choice(DENSE, dense=dense)
        if save == "best" and monitor is None:
            raise InputError(
                "save='best' needs `monitor`, the name of a value that `fit` logs. "
                "Received: monitor=None"
            )
        if not tolerance > 0:
            raise InputError(
                f"`tolerance` must be positive. Received: tolerance={tolerance!r}"
            )
        super().__init__(monitor, mode)
        self.directory = directory
        self.save = save
        self.tflite = tflite
        self.quantize = quantize
        self.representative_data = representative_data
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.tolerance = tolerance
        self.sample = sample
        self.verbose = verbose
        self.on_failure = on_failure
        self.dense = dense
        self.exported = []
        self.report = {}
        self._averages = Averages()

    def on_train_begin(self, logs: dict | None = None) -> None:
        specs = input_specs(self.model)
        if len(specs) != 1:
            raise InputError(
                "MergeAndExport takes a model with one input. "
                f"Received: inputs {[spec.name for spec in specs]}"
            )
        # Refuse now what does not fit, not after the last epoch.
        offer(
            self.model,
            specs,
            preprocessing=self.preprocessing,
            class_names=self.class_names,
        )
        self._images = _sample_images(self.sample, specs[0])
        self._averages = Averages()
        self._tflite_options = self.tflite and check_options(
            self.model,
            self.quantize,
            self.representative_data,
            input_shape=self._images.shape[1:],
        )
        if self.dense is not None:
            outside_strategy(in_dense_form)(self.model, True, self.dense, check=False)
        if self._is_chief():
            check_writable(self.directory)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._averages.remember(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        if self.save != "best":
            return
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"MergeAndExport exports where {self.monitor!r} is best, and it was "
                f"not logged; there are: {', '.join(logs or {})}.",
                stacklevel=2,
            )
            return
        if self.monitor_op is None:
            choose_comparison(self)
        if self._is_improvement(value, self.best) and self._export(value):
            self.best = value

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.save == "end":
            self._export((logs or {}).get(self.monitor))

    def _is_chief(self):
        resolver = getattr(self.model.distribute_strategy, "cluster_resolver", None)
        if resolver is None or not resolver.cluster_spec().jobs:
            return True
        has_chief = "chief" in resolver.cluster_spec().jobs
        return (resolver.task_type, resolver.task_id) == (
            "chief" if has_chief else "worker",
            0,
        )

    def _export(self, value):
        """Export and return whether a version was published, here or by the chief."""
        if not self._is_chief():
            return True
        self.report = {
            "published": None,
            "epoch": getattr(self, "_epoch", -1) + 1,
            "monitored": {} if value is None else {self.monitor: float(value)},
            "averaged_weights": bool(average_pairs(self.model)),
            "tolerance": self.tolerance,
            "differences": {},
            "fully_connected_only": {},
            "failure": None,
        }
        try:
            with new_version(self.directory) as draft:
                self._write_and_check(draft.folder)
        except Exception as error:  # whatever it is, training is worth more
            self.report["failure"] = str(error)
            if self.on_failure == "raise":
                raise
            warnings.warn(
                f"MergeAndExport published nothing new under {self.directory}: {error}",
                stacklevel=2,
            )
            return False
        self.report["published"] = str(draft.path)
        self.exported.append(draft.path)
        if self.verbose:
            errors = self.report["differences"].items()
            print(
                f"\nMergeAndExport: {draft.path}, difference to the trained model "
                + ", ".join(f"{name} {error:.1e}" for name, error in errors)
            )
        return True

    @outside_strategy
    def _write_and_check(self, folder):
        with self._averages.in_model(self.model):
            # The train form is what counts, in float32 as the artifacts are.
            trained = in_float32(self.model)
            expected = run_model(trained, self._images)
            agreement.check_finite(trained, expected)
            known = origin.describe(
                self.model,
                form=origin.MERGED,
                preprocessing=self.preprocessing,
                class_names=self.class_names,
            )
            model, known["dense"] = in_dense_form(trained, True, self.dense)
        write_saved_model(
            model,
            folder,
            preprocessing=self.preprocessing,
            class_names=self.class_names,
        )
        self._check("saved_model", folder, load_saved_model(folder), expected, known)
        if self.tflite:
            file = folder / "model.tflite"
            write_tflite(model, file, **self._tflite_options)
            self._check("tflite", file, load_tflite(file), expected, known)
        outcome = ("published", "failure")
        report = {key: v for key, v in self.report.items() if key not in outcome}
        (folder / "report.json").write_text(
            json.dumps(report, indent=2) + "\n", "utf-8"
        )

    def _check(self, name, path, run, expected, known):
        error = difference(run(self._images), expected)
        audit = audited(path)
        self.report["differences"][name] = error
        self.report["fully_connected_only"][name] = audit["fully_connected_only"]
        exact = name != "tflite" or self.quantize is None
        if not math.isfinite(error) or (exact and error > self.tolerance):
            raise RunError(
                f"The outputs of the {name} differ from the trained model's by more "
                f"than tolerance={self.tolerance:g} of their magnitude. "
                f"Received: {error:.3g}"
            )
        equality = agreement.equality(
            {"images": len(self._images), "relative_difference": error},
            kind="random images" if self.sample is None else "sample images",
            allowed=self.tolerance if exact else None,
        )
        artifact = {"kind": name, "epoch": self.report["epoch"]}
        if name == "tflite":
            artifact |= {"quantize": self.quantize, "batch": batch_of(path)}
        origin.write(path, known, artifact=artifact, equality=equality, audit=audit)


def _sample_images(sample, spec):
    shape, dtype = tuple(spec.shape[1:]), spec.dtype.as_numpy_dtype
    if sample is None:
        if None in shape:
            raise InputError(
                "A model of unknown height and width needs `sample`, images to "
                f"compare on. Received: sample=None with input_shape={shape}"
            )
        return np.random.default_rng(0).normal(size=(4, *shape)).astype(dtype)
    images = np.asarray(sample, dtype)
    if len(images.shape) != len(shape) + 1 or any(
        own not in (None, given) for own, given in zip(shape, images.shape[1:])
    ):
        raise InputError(
            f"`sample` must hold a batch of images {shape}. "
            f"Received: shape {images.shape}"
        )
    return images
