"""LLaVA-Bench's judge prompt: the official rule file in, what is sent for each answer out.

The category's prompt is the official one, read from the user's copy of LLaVA's
`llava/eval/table/rule.json`. It is not shipped, so that it cannot drift. Source:
`eval_gpt_review_bench.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import read_json_file, require_keys
from prism_tune.evaluation.benchmarks.llava_bench import FAILED, PREFIX, Pair
from prism_tune.run.fingerprints import fingerprint

SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
REVIEW_NEW_TOKENS = 1024
_SOURCE = "rule.json of https://github.com/haotian-liu/LLaVA (llava/eval/table)"


@dataclass(frozen=True)
class Review:
    """A judge's words on a pair of answers, and who the judge says it is."""

    content: str
    model: str

    @property
    def pair(self) -> Pair:
        """The two grades in its first line, the reference's first; (-1, -1) where there are none.

        As the official script: commas are spaces, and then the line has one space in it.
        """
        words = self.content.split("\n")[0].replace(",", " ").split(" ")
        try:
            return (float(words[0]), float(words[1])) if len(words) == 2 else FAILED
        except ValueError:
            return FAILED


@dataclass(frozen=True)
class Rules:
    """Role and prompt by category."""

    by_category: Mapping[str, Mapping[str, str]]
    path: Path

    @property
    def checksum(self) -> str:
        """Of the texts, for the record."""
        return fingerprint(dict(self.by_category))

    def render(self, category: str, caption: str, question: str, answers: tuple[str, str]) -> str:
        """The user's message on the reference and the answer to judge.

        Raises:
            UserError: no rule for the category.
        """
        require_keys(self.by_category, (f"{PREFIX}{category}",), str(self.path))
        rule = self.by_category[f"{PREFIX}{category}"]
        require_keys(rule, ("role", "prompt"), f"{self.path}, {PREFIX}{category}")
        role = rule["role"]
        shown = "".join(
            f"[{role} {n}]\n{answer}\n\n[End of {role} {n}]\n\n"
            for n, answer in enumerate(answers, 1)
        )
        return (
            f"[Context]\n{caption}\n\n[Question]\n{question}\n\n{shown}"
            f"[System]\n{rule['prompt']}\n\n"
        )


def read_rules(path: Path) -> Rules:
    """Read the official rule file.

    Raises:
        UserError: not there, or not the official rules.
    """
    content = read_json_file(path)
    if not isinstance(content, dict) or not any(key.startswith(PREFIX) for key in content):
        raise UserError(f"{path}: expected rules named {PREFIX}...; they are in {_SOURCE}")
    return Rules(content, path)
