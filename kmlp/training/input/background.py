"""Work ahead: an iterator whose next entries a thread prepares."""

import queue
import threading

_END = object()


class Ahead:
    """An iterable's entries, some of them prepared before they are asked for.

    What the iterable raises is raised where its entry would have come. The thread ends
    with the entries, at `close`, or when the iterator is no longer held.

    Args:
        entries: an iterable that only the thread uses from now on.
        depth: how many entries wait at most.
    """

    def __init__(self, entries, depth=8):
        self._waiting = queue.Queue(depth)
        self._closed = threading.Event()
        arguments = entries, self._waiting, self._closed
        threading.Thread(target=_fill, args=arguments, daemon=True).start()

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed.is_set():
            raise StopIteration
        entry, error = self._waiting.get()
        if entry is not _END:
            return entry
        self._closed.set()
        raise StopIteration if error is None else error

    def close(self):
        """Ends the thread after the entry it is at."""
        self._closed.set()

    __del__ = close


def _fill(entries, waiting, closed):
    """Puts entries in line until they end or nobody wants more."""
    error = None
    try:
        for entry in entries:
            if not _put((entry, None), waiting, closed):
                return
    except BaseException as raised:
        error = raised
    _put((_END, error), waiting, closed)


def _put(entry, waiting, closed):
    """Whether the entry was taken before all was closed."""
    while not closed.is_set():
        try:
            waiting.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
