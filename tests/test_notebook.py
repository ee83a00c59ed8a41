"""docs/python.ipynb runs from its first cell to its last, and prints what stands in it.

After a change that is meant to change it: PRISM_TUNE_NOTEBOOK=write python -m pytest <this file>
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "docs" / "python.ipynb"
NOTEBOOK = json.loads(PATH.read_text())


def run_cell(source, names):
    """What the cell prints, and what its last expression is, as a notebook shows them."""
    tree, last = ast.parse(source), None
    if isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(last, "cell", "eval"), names)
    return printed.getvalue(), value


def show(text, value):
    """The outputs of a cell as they stand in the file."""
    shown = []
    if text:
        lines = text.splitlines(keepends=True)
        shown.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        result = {"text/plain": repr(value).splitlines(keepends=True)}
        shown.append(
            {
                "data": result,
                "execution_count": None,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return shown


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = {"__name__": "__main__"}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            text, value = run_cell("".join(cell["source"]), names)
            outputs = show(text.replace(str(names["place"]), "PLACE"), value)
            if os.environ.get("PRISM_TUNE_NOTEBOOK") == "write":
                cell["outputs"] = outputs
            assert outputs == cell["outputs"], "".join(cell["source"])
    if os.environ.get("PRISM_TUNE_NOTEBOOK") == "write":
        PATH.write_text(json.dumps(NOTEBOOK, indent=1, ensure_ascii=False) + "\n")


def test_it_is_a_notebook():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
