"""The command line: `kmlp NAME`, one module a command.

`registry` names the commands. The function that it points to adds a command's arguments
to a parser, and with them the job. A module imports what takes seconds when its job
runs, so that help and refusals come at once.
"""
