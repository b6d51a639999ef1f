"""`python -m kmlp`: the command line."""

from kmlp.commands.main import enter

if __name__ == "__main__":
    enter()
