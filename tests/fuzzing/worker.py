"""Go through files in a process of its own, and say what each cost.

One line of JSON in, `{"path", "entry"}`; one line out, with the exit code, what was
printed, the largest memory in MB above that of before, and the seconds.
"""

import contextlib
import gc
import io
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

ROOM = 6 << 30  # no file may have all of the machine


def _status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def run(entry, path, picture, out):
    from kmlp.commands.main import main

    if entry == "create_model":
        import kmlp

        small = {"patch_size": 4, "width": 8, "depth": 1, "input_shape": (32, 32, 3)}
        named = path.endswith(".weights.h5")
        arguments = ("resmlp_s12",) if named else ()
        try:
            kmlp.create_model(*arguments, weights=path, **(small if named else {}))
        except (kmlp.errors.KmlpError, OSError, ImportError) as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    published = path.endswith((".pth", ".npz", ".safetensors", ".h5"))
    told = ["--mean", "0,0,0", "--std", "1,1,1"] if published else []
    words = {
        "info": ["info", path],
        "json": ["info", path, "--json"],
        "audit": ["audit", path],
        "verify": ["verify", path],
        "convert": ["convert", path, out, "--overwrite"],
        "predict": ["predict", picture, "--weights", path, *told],
    }
    return main(words[entry])


def main():
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries write where they like
    from PIL import Image

    picture, out = str(folder / "picture.png"), str(folder / "out.keras")
    Image.linear_gradient("L").convert("RGB").save(picture)
    import keras
    import tensorflow  # noqa: F401

    import kmlp  # noqa: F401

    limit = int(_status("VmSize") * (1 << 20)) + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gc.freeze()  # a full search would take longer than most files
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        before, started = _status("VmRSS"), time.perf_counter()
        worked = time.process_time()
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = run(asked["entry"], asked["path"], picture, out)
        except SystemExit as error:
            code = error.code
        except BaseException:
            code = traceback.format_exc()
        found = {
            "code": code,
            "said": said.getvalue()[-2000:],
            "memory": max(0.0, _status("VmHWM") - before),
            "seconds": time.perf_counter() - started,
            "worked": time.process_time() - worked,
        }
        print(json.dumps(found), file=answers, flush=True)
        if code == 0:
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
