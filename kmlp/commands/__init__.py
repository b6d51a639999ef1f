"""The jobs of the command `kmlp`, one module each.

A module's `add(commands)` adds its subparser, whose `job` is the function to run. What
takes seconds to import is imported there, when the job runs.
"""
