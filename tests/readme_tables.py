"""The parts of README.md that a command prints.

They stand between `<!-- from: COMMAND -->` and `<!-- end -->`. `python
tests/readme_tables.py --write` puts what the commands print today into them.
"""

import argparse
import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_BLOCK = re.compile(r"<!-- from: (?P<command>.+?) -->\n(?P<body>.*?)<!-- end -->", re.S)
_FENCE = "```"


def blocks(text):
    """`{command: what stands there}`, in order."""
    return {match["command"]: match["body"] for match in _BLOCK.finditer(text)}


def printed(command):
    """What a `kmlp` command prints, called in this process.

    Raises:
        ValueError: another program, or a command that fails.
    """
    from kmlp.commands import main

    program, *arguments = shlex.split(command)
    if program != "kmlp":
        raise ValueError(f"Only kmlp is called. Received: {command!r}")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main.main(arguments)
    if code:
        raise ValueError(f"The command failed, code {code}. Received: {command!r}")
    return output.getvalue()


def rendered(command, output):
    """How it stands in the README: Markdown as it is, other text fenced."""
    if output.startswith("|"):
        return f"\n{output.strip()}\n\n"
    return f"\n{_FENCE}\n$ {command}\n{output.rstrip()}\n{_FENCE}\n\n"


def rewritten(text):
    """A text whose blocks hold what their commands print today."""

    def block(match):
        command = match["command"]
        body = rendered(command, printed(command))
        return f"<!-- from: {command} -->\n{body}<!-- end -->"

    return _BLOCK.sub(block, text)


def commands(text, programs=("kmlp ", "python training/")):
    """Lines of code blocks that call a program, as lists of words.

    Comments, pipes and the environment before a command are left out.
    """
    found = []
    for block in re.findall(rf"^{_FENCE}\w*\n(.*?)^{_FENCE}$", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(\$ )?([A-Z_]+=\S+ )*", "", line)
            if line.startswith(programs):
                found.append(line)
    words = [shlex.split(line, comments=True) for line in found]
    return [line[: line.index("|")] if "|" in line else line for line in words]


def main(argv=None):
    """Writes the blocks, or says which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="instead of comparing")
    options = parser.parse_args(argv)
    text = README.read_text()
    new = rewritten(text)
    if options.write:
        README.write_text(new)
        return 0
    there, now = blocks(text), blocks(new)
    differ = [command for command in now if there[command] != now[command]]
    for command in differ:
        print(f"differs: {command}")
    return bool(differ)


if __name__ == "__main__":
    sys.path.insert(0, str(README.parent))
    sys.exit(main())
