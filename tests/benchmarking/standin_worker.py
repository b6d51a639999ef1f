"""A backend's process without a backend: it answers what it is told to."""

import os
import pickle
import signal
import sys
import time


def answered(question, arguments):
    """What comes back; or the end."""
    if question == "echo":
        return "answer", arguments
    if question == "environment":
        return "answer", {name: os.environ.get(name) for name in arguments["names"]}
    if question == "raise":
        return arguments["kind"], arguments["message"]
    if question == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if question == "exit":
        print("a first line\nOddError: no such thing", file=sys.stderr, flush=True)
        os._exit(3)
    time.sleep(600)


while True:
    try:
        asked = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    pickle.dump(answered(*asked), sys.stdout.buffer)
    sys.stdout.buffer.flush()
