"""What a run reached, and what its network costs, by its report."""

import json
from pathlib import Path

from kmlp.analysis.efficiency import Cost
from kmlp.artifacts.locating import CHECKPOINT, newest, run_name
from kmlp.errors import InputError

REPORT = "report.json"
_WHAT = f"A finished run of a classifier has a {REPORT} with its accuracy"


def read_cost(folder, activations=False):
    """What a finished run's network costs and reaches.

    Args:
        folder: of the run, or of its versions, of which the newest counts.
        activations: whether they are counted, for which the network is opened.

    Returns:
        A `kmlp.analysis.efficiency.Cost` with the folder's name; its top-1 is the
        trained network's on the run's validation images.

    Raises:
        InputError: no report, or one without an accuracy.
        OSError: the report cannot be read.
    """
    folder = Path(folder).expanduser()
    path = newest(folder) / REPORT if folder.is_dir() else folder / REPORT
    if not path.is_file():
        raise InputError(f"{_WHAT}; there is none here. Received: {str(folder)!r}")
    try:
        report = json.loads(path.read_text())
        trained, data = report["forms"]["trained"], report["data"]
        top1 = 100 * float(trained["accuracy"])
        parameters = int(trained["trainable_parameters"])
        macs = int(trained["multiply_adds"])
        size = tuple(report["arguments"]["input_shape"][:2])
        name = str(data["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{_WHAT}; this one has none that can be read ({error!r}). "
            f"Received: {str(path)!r}"
        ) from error
    folder = path.parent
    return Cost(
        name=run_name(folder) or report.get("architecture", str(folder)),
        image_size=size,
        parameters=parameters,
        macs=macs,
        activations=_activations(folder) if activations else None,
        top1=top1,
        data=name,
    )


def _activations(folder):
    from kmlp.analysis.complexity import profile
    from kmlp.pretrained.creation import create_model

    return profile(create_model(weights=folder / CHECKPOINT)).activations
