"""A backend's process: it is asked through a pipe, and answers.

`python -m kmlp.benchmarking.worker`, with `KERAS_BACKEND` in the environment. A
request is a pickled `(question, arguments)`, an answer `("answer", value)`,
`("input", message)` where what was asked for is wrong, or `("failed", message)` where
it does not work here. It ends with its input, whatever it is doing. Both ends are one
program's.
"""

import os
import pickle
import queue
import sys
import threading
import time

from kmlp.console import first_line
from kmlp.errors import KmlpError


class Desk:
    """Answers the questions; a method for each."""

    def __init__(self):
        self._runs = []
        self._networks = self._peak = None

    def start(self, device, threads, precision):
        """Makes ready; returns what is used, by name."""
        import keras

        from kmlp.benchmarking import devices
        from kmlp.benchmarking.contenders import Networks
        from kmlp.benchmarking.devices import Peak

        if device == "cpu":
            devices.use_cores(threads)
        name = devices.gpu_name()
        if device == "gpu" and name is None:
            raise RuntimeError(
                "this backend sees no GPU: --device cpu measures it on the CPU"
            )
        self._networks = Networks()
        self._peak = Peak(precision, seconds=0.25, smallest=256)
        return {
            "version": devices.version(),
            "keras": keras.__version__,
            "device": name or f"{threads} CPU core{'s' * (threads > 1)}",
        }

    def check(self, sources):
        """Looks at the networks' names and options."""
        try:
            for source in sources:
                source.check()
        except (KmlpError, ValueError, OSError) as error:
            raise WrongInput(error) from error

    def make(self, case):
        """Makes a contender and runs it once, which compiles; returns its figures."""
        from kmlp.benchmarking.measuring import repeats

        contender, figures = self._networks.contender(case)
        begun = time.perf_counter()
        contender.run()
        first = time.perf_counter() - begun
        self._runs.append((contender, repeats(contender.run, time.perf_counter)))
        own = {"number": len(self._runs) - 1, "first_call_seconds": first}
        return figures | own

    def turn(self, number):
        """A contender's images per second, measured once more."""
        from kmlp.benchmarking.measuring import turn

        contender, times = self._runs[number]
        return turn(contender, times, time.perf_counter)

    def product(self):
        """Multiply-adds per second of the matrix product, measured once more."""
        return self._peak.turn() / 2

    def memory(self, case):
        """Bytes that a case needs at its peak, for a process that does nothing else.

        `None` where the system does not tell.
        """
        from kmlp.benchmarking.peak_memory import peak_memory

        def make():
            return self._networks.contender(case)[0].run

        return peak_memory(make, case.xla)


class WrongInput(Exception):
    """What was asked for is wrong, whoever is asked."""


def answer(desk, question, arguments):
    """An answer, whatever happens."""
    try:
        return "answer", getattr(desk, question)(**arguments)
    except (WrongInput, KmlpError) as error:
        return "input", " ".join(str(error).split())
    except ValueError as error:
        return "failed", first_line(error)[:300]
    except Exception as error:
        return "failed", f"{type(error).__name__}: {first_line(error)[:300]}"


def listen(asked):
    """Passes questions on; where the parent is gone, ends what is being done."""
    try:
        while True:
            asked.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main():
    """Answers until nobody asks any more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        # Keras would import it as soon as it writes down a layer's arguments.
        sys.modules.setdefault("tensorflow", None)
    desk, asked = Desk(), queue.SimpleQueue()
    threading.Thread(target=listen, args=(asked,), daemon=True).start()
    while True:
        pickle.dump(answer(desk, *asked.get()), answers)
        answers.flush()


if __name__ == "__main__":
    main()
