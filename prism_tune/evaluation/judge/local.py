"""A local language model as judge: a prompt in, a grade or a review out.

MM-Vet: each of the eleven scores "0.0" ... "1.0" is put behind the prompt, and the model's
probability of it is read off; nothing is sampled. The grade is their expectation, or the likeliest
of them.
LLaVA-Bench: the review is generated, greedily, under the model's chat template where it has one.

Shape legend: S scores (11), L tokens of prompt and score, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from prism_tune.chat.rendering import render_limited, template_options
from prism_tune.config.sections import DType, Readout
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.grades import Grade, name_local_judge
from prism_tune.evaluation.decoding.greedy import make_greedy
from prism_tune.evaluation.judge.review_prompt import REVIEW_NEW_TOKENS, SYSTEM, Review
from prism_tune.models.damage import reraised_if_damaged
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.hub import require_here_or_hub
from prism_tune.models.tokenizer import load_tokenizer

SCORES = tuple(number / 10 for number in range(11))


class LocalJudge:
    """Grades by the likelihood of each score.

    Args:
        path: a causal language model: directory or hub id, safetensors.
        readout: "expected" for the mean score under the model, "argmax" for the likeliest.
        dtype: to compute in.

    Raises:
        UserError: no such model, or no tokenizer with it.
    """

    def __init__(self, path: str, *, readout: Readout = "expected", dtype: DType = "auto") -> None:
        device = pick_device()
        require_here_or_hub(path, None, "--model")
        try:
            with reraised_if_damaged(path, "--model"):
                model: Any = AutoModelForCausalLM.from_pretrained(
                    path, dtype=resolve_dtype(dtype, device), use_safetensors=True
                )
        except UserError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(
                f"--model: {path!r} is neither a directory with a language model nor a hub id that "
                "can be reached; for a judge behind an address give --base-url as well"
            ) from error
        self._tokenizer: Any = load_tokenizer(path)
        self._model = model.to(device).eval()
        self._readout = readout
        self._path = f"{path} (local)"
        self._name = name_local_judge(path, readout)

    def grade(self, prompt: str) -> Grade:
        """One graded answer."""
        probabilities_S = self.log_likelihoods(prompt).softmax(0)
        if self._readout == "argmax":
            score = SCORES[int(probabilities_S.argmax())]
        else:
            score = float((probabilities_S * torch.tensor(SCORES)).sum())
        score = min(max(score, 0.0), 1.0)
        return Grade(score, f"{score:.3f}", self._name)

    @torch.inference_mode()
    def review(self, message: str) -> Review:
        """One answer pair compared.

        Raises:
            UserError: nothing ends a review.
        """
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
        if self._tokenizer.chat_template:
            text = render_limited(
                lambda: self._tokenizer.apply_chat_template(
                    messages,
                    **template_options(self._tokenizer.chat_template),
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
            inputs = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        else:
            inputs = self._tokenizer(f"{SYSTEM}\n\n{message}", return_tensors="pt")
        inputs = inputs.to(self._model.device)
        make_greedy(self._model, self._tokenizer)
        row = self._model.generate(**inputs, max_new_tokens=REVIEW_NEW_TOKENS)[0]
        new = row[inputs["input_ids"].shape[1] :]
        return Review(self._tokenizer.decode(new, skip_special_tokens=True).strip(), self._path)

    @torch.inference_mode()
    def log_likelihoods(self, prompt: str) -> torch.Tensor:
        """The log probability of each score behind the prompt, shape (S,), float32 on the CPU.

        Prompt and score are tokenised as one text, because where the last space of the prompt
        goes depends on what follows; what all eleven share is computed once.
        """
        rows = [self._tokenizer(f"{prompt}{score:.1f}").input_ids for score in SCORES]
        num_shared = _count_shared(rows)
        device = self._model.device
        shared = torch.tensor([rows[0][:num_shared]], device=device)
        outcome = self._model(input_ids=shared, use_cache=True, logits_to_keep=1)
        endings = [row[num_shared:] for row in rows]
        length = max(map(len, endings))
        padded = torch.tensor([e + [0] * (length - len(e)) for e in endings], device=device)
        if all(hasattr(layer, "batch_repeat_interleave") for layer in outcome.cache.layers):
            outcome.cache.batch_repeat_interleave(len(rows))
            logits_SLV = self._model(input_ids=padded, cache=outcome.cache).logits
        else:  # a state in place of keys and values (Qwen3.5)
            whole = torch.cat([shared.expand(len(rows), -1), padded], dim=1)
            logits_SLV = self._model(input_ids=whole, logits_to_keep=length).logits
        first_V = outcome.logits[0, -1].float().log_softmax(-1)
        later_SLV = logits_SLV.float().log_softmax(-1)
        totals = [
            first_V[ending[0]]
            + sum(later_SLV[row, place, token] for place, token in enumerate(ending[1:]))
            for row, ending in enumerate(endings)
        ]
        return torch.stack(totals).cpu()


def _count_shared(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with."""
    columns = list(zip(*rows, strict=False))
    differing = (place for place, column in enumerate(columns) if len(set(column)) > 1)
    return next(differing, len(columns))
