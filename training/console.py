"""`kmlp.console` for the jobs, before Keras is there.

Whoever asks for help or mistypes an option waits for neither Keras nor TensorFlow,
which the package `kmlp` brings with it: the one module is loaded from its file, and is
the same one that `kmlp` finds later.
"""

import importlib.util
import sys
from pathlib import Path

_NAME = "kmlp.console"


def _load():
    if _NAME not in sys.modules:
        (folder, *_) = importlib.util.find_spec("kmlp").submodule_search_locations
        spec = importlib.util.spec_from_file_location(
            _NAME, Path(folder) / "console.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[_NAME] = module
        spec.loader.exec_module(module)
    return sys.modules[_NAME]


console = _load()
aligned, progress_bar = console.aligned, console.progress_bar
add_preparation, add_reading = console.add_preparation, console.add_reading
Parser, Stop = console.Parser, console.Stop
exit_code, import_quietly = console.exit_code, console.import_quietly
first_line, some = console.first_line, console.some
image_size, minutes, positive = console.image_size, console.minutes, console.positive
rate, seed, sizes = console.rate, console.seed, console.sizes
scales = console.scales
step_range, NAMED = console.step_range, console.NAMED
RESOLUTIONS = console.RESOLUTIONS
channels, deviations, share = console.channels, console.deviations, console.share
