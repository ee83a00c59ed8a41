"""MM-Vet's judge prompt: the official evaluator's file in, what is sent for each answer out.

The few-shot text (instruction, table header, five rows about an equation, two about a meme) is the
official one, read from the file the user gives: `mm-vet_evaluator.py` or `.ipynb` of
github.com/yuweihao/MM-Vet, or the text alone. It is not shipped, so that it cannot drift.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import parse_json, read_text, require_keys
from prism_tune.run.fingerprints import fingerprint

_HEADER = "Question | Ground truth | Prediction | Correctness"
_NUM_ROWS = 7
_SOURCE = "mm-vet_evaluator.py of https://github.com/yuweihao/MM-Vet"
ASK_AGAIN = "\nPredict the correctness of the answer (digit): "


@dataclass(frozen=True)
class JudgePrompt:
    """The few-shot table, to which the answer to grade is added as the last row."""

    table: str

    @property
    def checksum(self) -> str:
        """Of the text, for the record."""
        return fingerprint(self.table)

    def render(self, question: str, reference: str, answer: str) -> str:
        """The message: the table, and a row that lacks its last cell (official `runs`)."""
        truth = reference.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return self.table + "\n" + " | ".join([question, truth, answer, ""])


def read_judge_prompt(path: Path) -> JudgePrompt:
    """Read the few-shot text from the official evaluator (its variable `prompt`) or a text file.

    Raises:
        UserError: not there, or not the official table.
    """
    try:
        content = read_text(path)
    except UserError as error:
        raise UserError(f"{error}; expected {_SOURCE}") from error
    if path.suffix in (".py", ".ipynb"):
        content = _find_variable(_read_code(path, content), path)
    rows = content.partition(_HEADER)[2].strip().split("\n")[1:]
    if len(rows) != _NUM_ROWS:
        raise UserError(
            f"{path}: expected MM-Vet's prompt: the header {_HEADER!r} and {_NUM_ROWS} example "
            f"rows, found {len(rows)}; it is in {_SOURCE}"
        )
    return JudgePrompt(content)


def _read_code(path: Path, content: str) -> str:
    if path.suffix == ".py":
        return content
    notebook = parse_json(content, str(path))
    require_keys(notebook, ("cells",), str(path))
    cells = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    return next((source for source in sources if _HEADER in source), "")


def _find_variable(code: str, path: Path) -> str:
    """The string that is assigned to `prompt`; the file is parsed, never run."""
    try:
        statements = ast.parse(code).body
    except SyntaxError as error:
        raise UserError(f"{path}: not readable as Python: {error}") from error
    for statement in statements:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Constant):
            continue
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if "prompt" in names and isinstance(statement.value.value, str):
            return statement.value.value
    raise UserError(f"{path}: no text assigned to `prompt`; expected {_SOURCE}")
