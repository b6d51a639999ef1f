"""The terminal: tables as text, CSV and Markdown."""

import csv
import io

import pytest

from kmlp.console import table

ROWS = [("a|b, c", 1234, None), ("d", 5.5, "x")]


def test_text_stands_in_columns():
    lines = table(("name", "n", "w"), ROWS).splitlines()
    assert lines == ["name       n  w", "a|b, c  1234", "d        5.5  x"]


def test_csv_comes_back():
    text = table(("name", "n", "w"), ROWS, "csv")
    found = list(csv.reader(io.StringIO(text)))
    assert found == [["name", "n", "w"], ["a|b, c", "1234", ""], ["d", "5.5", "x"]]


def test_markdown_keeps_its_columns():
    assert table(("name", "n", "w"), ROWS, "markdown").splitlines() == [
        "| name | n | w |",
        "|---|---:|---:|",
        "| a\\|b, c | 1234 |  |",
        "| d | 5.5 | x |",
    ]


def test_no_rows_leave_the_header():
    assert table(("name", "n"), []) == "name  n"


@pytest.mark.parametrize(
    ("rows", "form", "words"),
    [([], "html", "`form` must be one of"), ([("a",)], "csv", "2 cells")],
)
def test_what_is_no_table_is_refused(rows, form, words):
    with pytest.raises(ValueError, match=f"{words}.*Received"):
        table(("name", "n"), rows, form)
