"""A judge behind an OpenAI-compatible address: a prompt in, a grade or a review out.

MM-Vet's official protocol: one user message, temperature 0, at most 3 new tokens; the score is the
first word. Where it is no number from 0 to 1 the judge is asked again, with a sentence added, at
temperatures 0, 0.5, 1 and 1.5; after that the grade has failed: 0 in the official file.
LLaVA-Bench's: a system message and one of the user's, temperature 0.2, at most 1,024 new tokens.
The key is read from OPENAI_API_KEY; it goes into the request's header and nowhere else.
"""

from __future__ import annotations

from prism_tune.evaluation.benchmarks.grades import Grade, parse_score
from prism_tune.evaluation.judge.prompt import ASK_AGAIN
from prism_tune.evaluation.judge.review_prompt import REVIEW_NEW_TOKENS, SYSTEM, Review
from prism_tune.evaluation.serving.chat_api import ChatApi

MAX_NEW_TOKENS = 3
_REVIEW_TEMPERATURE = 0.2
_TEMPERATURES_AGAIN = (0.0, 0.5, 1.0, 1.5)


class ApiJudge(ChatApi):
    """Grades by asking a chat model.

    Args:
        base_url, model, pause: as of any `ChatApi`.
    """

    def grade(self, prompt: str) -> Grade:
        """One graded answer.

        Raises:
            UserError: the server refuses, or does not answer after several tries.
        """
        content, model = self._ask_grade(prompt, 0.0)
        for temperature in _TEMPERATURES_AGAIN:
            score = parse_score(content)
            if score is not None:
                return Grade(score, content, model)
            content, model = self._ask_grade(prompt + ASK_AGAIN, temperature)
        return Grade(parse_score(content) or 0.0, content, model)

    def review(self, message: str) -> Review:
        """One answer pair compared.

        Raises:
            UserError: as `grade`.
        """
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
        return Review(*self._ask(messages, _REVIEW_TEMPERATURE, REVIEW_NEW_TOKENS))

    def _ask_grade(self, prompt: str, temperature: float) -> tuple[str, str]:
        return self._ask([{"role": "user", "content": prompt}], temperature, MAX_NEW_TOKENS)

    def _ask(
        self, messages: list[dict[str, str]], temperature: float, max_new_tokens: int
    ) -> tuple[str, str]:
        """The answer's text, and the model that the server says has given it."""
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": temperature,
            "max_tokens": max_new_tokens,
        }
        return self.complete(body)[:2]
