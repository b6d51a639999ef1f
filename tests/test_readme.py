"""README.md: its tables are what the commands print, its commands are known."""

import ast
import importlib
import re
import runpy
import sys
import types

import pytest
import readme_tables
from cases import long
from readme_tables import README, blocks, commands, printed, rendered

import kmlp
from kmlp.commands import (
    benchmark_input,
    compress,
    evaluate,
    gallery,
    main,
    probe,
    train,
)

TEXT = README.read_text()
BLOCKS = blocks(TEXT)
SCRIPTS = {
    script.program: script
    for script in (
        train.SCRIPT,
        train.DETECTOR,
        train.SEGMENTER,
        evaluate.SCRIPT,
        evaluate.DENSE_SCRIPT,
        probe.SCRIPT,
        compress.SCRIPT,
        benchmark_input.SCRIPT,
        gallery.SCRIPT,
    )
}
COMMANDS = {" ".join(words): words for words in commands(TEXT)}


@pytest.mark.parametrize(
    "command", [long(block) if "--costs" in block else block for block in BLOCKS]
)
def test_tables_are_what_the_commands_print(command):
    expected = rendered(command, printed(command))
    assert BLOCKS[command] == expected, "python tests/readme_tables.py --write"


def test_there_are_such_tables():
    assert "kmlp list --costs" in BLOCKS
    assert TEXT.count("<!-- from: ") == TEXT.count("<!-- end -->") == len(BLOCKS)


def parse(words):
    if words[0] == "kmlp":
        return main._parser().parse_args(words[1:])
    return SCRIPTS[words[1].removeprefix("training/")].parse(words[2:])


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    """By the parsers themselves; what they would do is tested elsewhere."""
    parse(COMMANDS[line])


def test_commands_are_found():
    assert len(COMMANDS) > 40
    for program in ("kmlp info", "kmlp benchmark", "python training/train_detector.py"):
        assert any(line.startswith(program) for line in COMMANDS)


def test_scripts_call_the_commands_of_their_names(monkeypatch):
    folder = README.parent / "training"
    assert set(SCRIPTS) == {path.name for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        monkeypatch.setattr(sys, "path", list(sys.path))
        names = runpy.run_path(str(path))
        assert SCRIPTS[path.name] in names.values()


def test_what_is_not_understood_is_seen():
    (words,) = commands("```sh\nA=b kmlp list --cost \\\n  x  # y\n```\n")
    assert words == ["kmlp", "list", "--cost", "x"]
    with pytest.raises(SystemExit):
        parse(["kmlp", "lists"])
    with pytest.raises(SystemExit):
        parse(["python", "training/probe.py", "RUN", "--methods", "knn"])


def test_what_differs_is_written(tmp_path, monkeypatch, capsys):
    path = tmp_path / "README.md"
    start, end = "a\n<!-- from: kmlp list 'convmlp_*' -->\n", "<!-- end -->\nb\n"
    path.write_text(f"{start}old\n{end}")
    monkeypatch.setattr(readme_tables, "README", path)
    assert readme_tables.main([]) == 1
    assert capsys.readouterr().out == "differs: kmlp list 'convmlp_*'\n"
    assert readme_tables.main(["--write"]) == 0
    shown = "$ kmlp list 'convmlp_*'\nconvmlp_l\nconvmlp_m\nconvmlp_s"
    assert path.read_text() == f"{start}\n```\n{shown}\n```\n\n{end}"
    assert readme_tables.main([]) == 0
    with pytest.raises(ValueError, match="failed, code 2"):
        printed("kmlp list nothing*")
    with pytest.raises(ValueError, match="Received: 'rm -r x'"):
        printed("rm -r x")


def test_links_lead_somewhere():
    without_code = re.sub(r"^```.*?^```$", "", TEXT, flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", without_code, re.M)
    anchors = {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (README.parent / target).exists(), target


def test_python_blocks_are_python():
    found = re.findall(r"^```python\n(.*?)^```$", TEXT, re.S | re.M)
    assert len(found) > 3
    for block in found:
        compile(block, "README.md", "exec")


def _named(node, known):
    """What an expression names, as far as it leads through modules."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    owner = _named(node.value, known) if isinstance(node, ast.Attribute) else None
    return getattr(owner, node.attr) if isinstance(owner, types.ModuleType) else None


def test_python_blocks_name_what_there_is():
    known = {"kmlp": kmlp}
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", TEXT, re.S | re.M))
    nodes = list(ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("kmlp"):
            module = importlib.import_module(node.module)
            known |= {one.name: getattr(module, one.name) for one in node.names}
    assert len(known) > 3
    assert sum(_named(node, known) is not None for node in nodes) > 10
