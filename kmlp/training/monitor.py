"""Show a run to a person: progress bars, CSV files, TensorBoard."""

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.curve_files import append_rows, read_columns, write_rows
from kmlp.artifacts.locating import HISTORY, STEPS
from kmlp.console import progress_bar
from kmlp.errors import InputError

BOARD = "tensorboard"
SHOWN_IMAGES = 16


class Monitor:
    """Show and write down a run as it goes.

    Args:
        job: Job, a `kmlp.training.job.Job`.
        schedule: Schedule of the learning rate.
        folder: Folder of the run; `None` on a worker that is not the chief: nothing is
            shown or written.
    """

    def __init__(self, job: Any, schedule: Any, folder: Path | None):
        self.job, self.schedule, self.folder = job, schedule, folder
        self.batch_size = job.recipe.batch_size
        # Steps between two rows of `steps.csv` and TensorBoard.
        self.every = min(job.options.log_steps, job.steps_per_epoch)
        self._bar = None
        self._board = None
        # Rows by file, and the files that could not be written lately.
        self._curves: dict[str, list[dict[str, Any]]] = {HISTORY: [], STEPS: []}
        self._behind: set[str] = set()

    def begin(
        self,
        step: int,
        history: list[dict[str, Any]],
        curve: dict[str, np.ndarray] | None,
    ) -> None:
        """Start at a step, and write the curves up to there anew.

        Args:
            step: Number of steps done.
            history: Rows of the epochs, to which the run adds.
            curve: Columns of the steps' rows; `None`: those of the file, where it can
                be read.
        """
        self._clock, self._clocked = time.perf_counter(), step
        self._last: dict[str, float] = {}
        if self.folder is None:
            return
        columns = self._kept(step) if curve is None else curve
        values = zip(*(column.tolist() for column in columns.values()))
        rows = [dict(zip(columns, row)) for row in values]
        self._curves = {HISTORY: history, STEPS: rows}
        for name in self._curves:
            self._write(name)
        # Curves alone are no reason to import TensorFlow.
        if sys.modules.get("tensorflow") and importlib.util.find_spec("tensorboard"):
            import tensorflow as tf

            self._board = tf.summary.create_file_writer(str(self.folder / BOARD))
            if step == 0:
                self._show()

    def epoch(self, number: int, done: int) -> None:
        """Open the progress bar of an epoch, `done` steps into it."""
        if self.folder is None:
            return
        self._bar = progress_bar(
            self.job.steps_per_epoch * self.batch_size,
            "img",
            initial=done * self.batch_size,
            desc=f"Epoch {number}/{self.job.epochs}",
            unit_scale=True,
        )

    def steps(self, step: int, values: dict[str, np.ndarray]) -> None:
        """Take the values of the steps up to `step`, arrays of one entry each."""
        count = len(values["loss"])
        self._last = {name: float(array[-1]) for name, array in values.items()}
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix(step), refresh=False)
            self._bar.update(count * self.batch_size)
        # Rows stand at fixed steps, wherever the pieces of the run begin.
        due = [s for s in range(step - count + 1, step + 1) if s % self.every == 0]
        if self.folder is None or not due:
            return
        now = time.perf_counter()
        speed = (step - self._clocked) * self.batch_size / max(now - self._clock, 1e-9)
        self._clock, self._clocked = now, step
        rows = []
        for at in due:
            index = at - (step - count) - 1
            row = {k: float(v[index]) for k, v in values.items() if k != "finite"}
            rate = float(self.schedule.rate_at(at - 1))
            row = {"step": at, **row, "learning_rate": rate}
            rows.append(row)
            self._scalars("train", at, {**row, "images_per_second": speed})
        self._curves[STEPS] += rows
        self._write(STEPS, rows)

    def curve(self) -> dict[str, np.ndarray]:
        """Return the columns of the steps' curve so far, for a checkpoint."""
        rows = self._curves[STEPS]
        names = dict.fromkeys(name for row in rows for name in row)
        return {n: np.array([row.get(n, np.nan) for row in rows]) for n in names}

    def epoch_end(self, history: list[dict[str, Any]]) -> None:
        """Close an epoch; the last row of `history` is its own."""
        self._close_bar()
        if self.folder is None:
            return
        row = history[-1]
        self._write(HISTORY)
        self._scalars("epoch", row["step"], row)
        if self._board is not None:
            self._board.flush()
        figures = [
            f"{name} {_shown(name, value)}"
            for name, value in row.items()
            if name not in ("epoch", "step", "seconds", "images_per_second")
        ]
        figures += [f"{row['images_per_second']:,.0f} images/s", self._left(row)]
        said = f"Epoch {row['epoch']}/{self.job.epochs}: {', '.join(figures)}"
        print(said, flush=True)

    def close(self) -> None:
        """Close what is open; safe to call twice."""
        self._close_bar()
        for name in list(self._behind):
            self._write(name)
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write(self, name, more=None):
        """Write a curve anew, or only `more` rows where all others are there.

        On Windows a spreadsheet that shows it keeps others from writing. That is no
        reason to end a run: the checkpoint has the rows, and they are written later.
        """
        path, rows = self.folder / name, self._curves[name]
        try:
            if more and name not in self._behind:
                append_rows(path, more)
            elif rows:
                write_rows(path, rows)
            else:
                path.unlink(missing_ok=True)
            self._behind.discard(name)
        except PermissionError as error:
            if name not in self._behind:
                print(
                    f"{name} is written later, since it cannot be now: close what "
                    f"holds it. Received: {error}",
                    file=sys.stderr,
                )
            self._behind.add(name)

    def _kept(self, step):
        """Return the columns up to a step of the file that an earlier version left."""
        try:
            found = read_columns(self.folder / STEPS)
            chosen = found["step"] <= step
            found = {name: column[chosen] for name, column in found.items()}
            return found | {"step": found["step"].astype("int64")}
        except (InputError, OSError, KeyError) as error:
            if step:
                print(f"The curve of steps begins anew: {error}", file=sys.stderr)
            return {}

    def _close_bar(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self):
        """Put images as the model sees them on the board, scaled to the full range."""
        import tensorflow as tf

        images = next(iter(self.job.training_data(0)()))[0][:SHOWN_IMAGES]
        images = np.asarray(images, "float32")
        low, high = images.min(), images.max()
        images = (images - low) / max(high - low, 1e-6)
        with self._board.as_default():
            tf.summary.image("augmented", images, step=0, max_outputs=len(images))

    def _postfix(self, step):
        return (
            f"loss {self._last['loss']:.4f}, rate {self.schedule.rate_at(step - 1):.2e}"
        )

    def _left(self, row):
        epochs = self.job.epochs - row["epoch"]
        minutes, seconds = divmod(round(epochs * row["seconds"]), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if epochs else "done"

    def _scalars(self, group, step, values):
        if self._board is None:
            return
        import tensorflow as tf

        with self._board.as_default():
            for name, value in values.items():
                if name not in ("step", "epoch"):
                    tf.summary.scalar(f"{group}/{name}", value, step=step)


def _shown(name, value):
    """Return a figure in words: a loss as a number, another as a percentage."""
    loss = name.endswith("loss") or not 0 <= value <= 1
    return f"{value:.4f}" if loss else f"{value:.2%}"
