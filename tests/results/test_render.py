import csv
import io
import json

import pytest

from prism_tune.results.render import (
    Cell,
    Table,
    duration_cell,
    format_seconds,
    number_cell,
    render,
)

TABLE = Table(
    title="Main_1",
    header=("Method", "Run", "Rel."),
    rows=(
        (Cell("a|b"), Cell("x"), number_cell(101.26, sd=0.5)),
        (Cell("c & d_e"), Cell("paper"), number_cell(None)),
    ),
    notes=("100 %",),
)


def test_markdown_is_padded_and_escaped():
    assert render(TABLE, "md") == (
        "### Main_1\n"
        "\n"
        "| Method  | Run   |        Rel. |\n"
        "|---------|-------|------------:|\n"
        "| a\\|b    | x     | 101.3 ± 0.5 |\n"
        "| c & d_e | paper |         n/a |\n"
        "\n"
        "- 100 %\n"
    )


def test_latex_is_escaped():
    text = render(TABLE, "latex")
    assert "\\caption{Main\\_1}" in text
    assert "\\begin{tabular}{llr}" in text
    assert "a|b & x & 101.3 $\\pm$ 0.5 \\\\" in text
    assert "c \\& d\\_e & paper & n/a \\\\" in text
    assert "\\par\\footnotesize 100 \\%" in text


def test_csv_holds_unrounded_numbers_and_the_spread():
    rows = list(csv.reader(io.StringIO(render(TABLE, "csv"))))
    assert rows == [
        ["Method", "Run", "Rel.", "Rel. sd"],
        ["a|b", "x", "101.26", "0.5"],
        ["c & d_e", "paper", "n/a", ""],
    ]


def test_no_cell_of_csv_is_a_formula():
    rows = ((Cell("=1+1"), Cell("-2.0", -2.0)), (Cell("n", names=("@a", "b")), Cell("-")))
    assert render(Table("t", ("Run", "+Rel."), rows), "csv").splitlines() == [
        "Run,'+Rel.",
        "'=1+1,-2.0",
        '"\'@a, b",-',
    ]


def test_json_holds_text_and_numbers():
    content = json.loads(render(TABLE, "json"))
    assert content["title"] == "Main_1"
    assert content["rows"][0]["Rel."] == {"text": "101.3 ± 0.5", "value": 101.26, "sd": 0.5}
    assert content["rows"][1]["Rel."] == {"text": "n/a"}
    assert content["notes"] == ["100 %"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "0:01:00"), (3725, "1:02:05"), (-90, "-0:01:30")],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_missing_is_na_and_never_zero():
    assert number_cell(None).text == "n/a"
    assert duration_cell(None).text == "n/a"
    assert number_cell(0.0).text == "0.0"
