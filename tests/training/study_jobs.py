"""Studies of tiny networks on one backend, whole and in pieces.

`study_jobs.py FOLDER DATA ROW…`, in a process of its own; or called by a test.
"""

import csv
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmlp.commands import train
from kmlp.console import import_quietly

STUDY = "repmlpnet/table4"
TINY = {
    "repmlpnet_cifar": {"depths": (1,), "widths": (8,), "share_sets": (2,)},
    "resmlp_12_cifar": {"depth": 1, "width": 8},
}
ROWS = ("repmlpnet_none", "repmlpnet_both")
COMMAND = (
    *("--study", STUDY, "--scale", "tiny", "--batch-size", "8"),
    *("--checkpoint-steps", "2", "--log-steps", "1"),
)
STEPS = 4


def shrink(replace, names=ROWS):
    """Makes studies tiny, by `replace(module, name, value)`."""
    import_quietly(settle=False, needed=False)
    from kmlp.benchmarking import devices
    from kmlp.training.studies import study, throughput

    scale = study.Scale("tiny", 24, 9, 2, TINY)
    rows = study.rows_of(STUDY)
    chosen = tuple(r for r in rows if r.name.rpartition("/")[2] in names)
    replace(study, "SCALES", {**study.SCALES, "tiny": scale})
    replace(study, "rows_of", lambda name: chosen if name == STUDY else rows)
    for module in (throughput, devices):
        replace(module, "SECONDS", 0.01)
        replace(module, "ROUNDS", 2)
    replace(devices, "SMALLEST_MATRIX", 64)
    replace(devices, "LARGEST_MATRIX", 128)


def studied(data, output, *more):
    """The command's exit code."""
    options = [*COMMAND, "--data", data, "--output", output]
    options += ["--logs", Path(output) / "logs", *more]
    return train.main([str(option) for option in options])


def outcome(output):
    """What rows have come to, without times."""
    found = {}
    for path in sorted(Path(output).glob("logs/*/rows/*/*.json")):
        result = json.loads(path.read_text())
        with open(path.with_suffix(".csv"), newline="") as file:
            history = list(csv.DictReader(file))
        for row in history:
            del row["seconds"], row["images_per_second"]
        names = ("top1", "weights_sha256", "merged_top1", "merged_difference")
        found[result["row"]] = {name: result[name] for name in names}
        found[result["row"]]["history"] = history
    return found


def pieces(data, output):
    """The same study, ended by the clock and killed within a row and after each."""
    from kmlp.training.monitor import Monitor
    from kmlp.training.studies import study_run

    codes = [studied(data, output, "--minutes", "0")]
    steps, keep = Monitor.steps, study_run._keep

    def killed(monitor, step, values):
        if step == 4:
            raise KeyboardInterrupt
        steps(monitor, step, values)

    Monitor.steps = killed
    codes.append(studied(data, output))
    Monitor.steps = steps

    def kept(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    study_run._keep = kept
    codes.append(studied(data, output))
    study_run._keep = keep
    codes.append(studied(data, output))
    return codes  # 0 paused, 130 killed twice, 0 finished


def first_losses(folder, data):
    """Losses of the first steps from weights that the first process to come keeps."""
    import keras
    import numpy as np

    from kmlp.training.engine.cluster import open_engine
    from kmlp.training.engine.weight_names import weight_names
    from kmlp.training.input.arrays import open_packed
    from kmlp.training.studies.row_job import resolve_row
    from kmlp.training.studies.study import find

    options = train.parse([*COMMAND, "--data", str(data), "--set", "warmup_epochs=0"])
    study = find(STUDY, "tiny")
    engine = open_engine(tensorflow_reads=False)
    packed = open_packed(data, 32, Path(folder) / "packed").part(24, 9)
    job = resolve_row(study, study.rows[-1], options, engine, packed)
    job.prepare()
    kept, weights = Path(folder) / "initial.npz", weight_names(engine.model)
    if not kept.exists():
        values = {n: keras.ops.convert_to_numpy(v) for n, v in weights.items()}
        np.savez(kept, **values)
    with np.load(kept) as file:
        for name, variable in weights.items():
            engine.assign(variable, file[name])
    values = engine.train(engine.feed(job.training_data(0)), STEPS)
    return [float(value) for value in values["loss"]]


def main(folder, data, *rows):
    """Does everything; writes what came of it beside the logs."""
    shrink(setattr, rows)
    backend = os.environ["KERAS_BACKEND"]
    output = Path(folder) / backend
    found = {
        "losses": first_losses(folder, data),
        "whole_code": studied(data, output / "whole"),
        "codes": pieces(data, output / "pieces"),
    }
    found["whole"] = outcome(output / "whole")
    found["pieces"] = outcome(output / "pieces")
    found["tensorflow"] = sys.modules.get("tensorflow") is not None
    (Path(folder) / f"{backend}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
