"""Questions as a model's inputs: what several of them begin with, once, and how each goes on.

In: requests (a rendered prompt and its images), and the model's processor. Out: `PromptBatch`.
Questions about the same images begin alike, up to behind the last image and often further: LLaVA's
POPE asks 18 questions of a picture whose 576 tokens are most of each prompt. Their common beginning
is a row of its own; a decoder's keys and values there do not depend on what follows.

Shape legend: B requests, G different beginnings, P and S tokens of the longest beginning and rest.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import ProcessorMixin

from prism_tune.chat.templates import placeholders
from prism_tune.data.conversation import adds_special_tokens
from prism_tune.data.encoding.encoder import (
    TOKEN_KEYS,
    encode_prompts,
    image_token_id,
    pad_id,
    require_accepted,
)
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.literal_text import blank_marks, splice, write_out
from prism_tune.data.policy import BadRecordError
from prism_tune.errors import UserError

Inputs = dict[str, torch.Tensor]
Places = list[int]


@dataclass(frozen=True)
class Request:
    """One prompt, its `<image>` placeholders in place, and one file for each placeholder.

    `question`: the same without template and placeholders, for a server that has its own.
    """

    prompt: str
    images: tuple[Path, ...] = ()
    question: str = ""


@dataclass(frozen=True)
class Answer:
    """The decoded new tokens.

    Attributes:
        text: of them.
        num_new_tokens: with the end token.
        finished: False when `max_new_tokens` cut the answer off.
        beyond_window: prompt and answer may be longer than what the model was made for.
    """

    text: str
    num_new_tokens: int
    finished: bool
    beyond_window: bool = False


@dataclass(frozen=True)
class PromptBatch:
    """Requests as a model reads them.

    Attributes:
        heads: what the processor makes of the beginnings and their images; (G, P), padded left.
        head_of_B: with which of them a request begins.
        rests: `input_ids` and `attention_mask` (B, S) of what follows, padded left; empty where no
            two requests begin alike: then a beginning is the whole prompt.
    """

    heads: Inputs
    head_of_B: torch.Tensor
    rests: Inputs

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All, to be counted."""
        return {**self.heads, **{f"rest {name}": value for name, value in self.rests.items()}}


def encode_batch(
    processor: ProcessorMixin, batch: Sequence[Request], *, shares: bool
) -> PromptBatch:
    """Requests as inputs, equal beginnings once where the model can go on from them (`shares`)."""
    if shares:
        found = _encode_shared(processor, batch)
        if found is not None:
            return found
    return PromptBatch(collate_prompts(processor, batch), torch.arange(len(batch)), {})


def collate_prompts(processor: ProcessorMixin, batch: Sequence[Request]) -> Inputs:
    """Prompts and images as the model's inputs, padded on the left.

    Returns:
        `input_ids` and `attention_mask` (B, L), and what the processor makes of the images
        (`pixel_values`), in the order of the placeholders; without it when there is no image.
    """
    images = [[open_image(path) for path in request.images] for request in batch]
    try:
        return dict(encode_prompts([r.prompt for r in batch], images, processor))
    except BadRecordError as error:
        raise UserError(f"a question cannot be put to the model: {error}") from error
    except ImageError:
        for path in [path for request in batch for path in request.images]:
            require_accepted(open_image(path), processor, str(path))
        raise


def group_by_images(requests: Sequence[Request]) -> list[Places]:
    """The places of the requests that show the same images, in the order of the first of each."""
    groups: defaultdict[tuple[Path, ...], Places] = defaultdict(list)
    for place, request in enumerate(requests):
        groups[request.images].append(place)
    return list(groups.values())


@dataclass(frozen=True)
class _Group:
    """Requests with the same images.

    `first`: the ids of the first of them. `behind`: of each, those behind its last image.
    """

    places: Places
    first: list[int]
    behind: list[list[int]]

    def count_common(self) -> int:
        """Tokens behind the images that all begin with; each keeps one of its own at least."""
        most = min(len(ids) for ids in self.behind) - 1
        columns = itertools.islice(zip(*self.behind, strict=False), max(most, 0))
        return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))

    def cut(self, longest_rest: int) -> int:
        """Where the rests begin: of one alone, where those of the others are as long."""
        of_images = len(self.first) - len(self.behind[0])
        if len(self.places) > 1:
            return of_images + self.count_common()
        return max(of_images, len(self.first) - longest_rest, 1)


def _encode_shared(processor: Any, batch: Sequence[Request]) -> PromptBatch | None:
    """None where nothing is shared, or where a text alone is not what the processor makes of it."""
    places = group_by_images(batch)
    if len(places) == len(batch):
        return None
    firsts = collate_prompts(processor, [batch[of_group[0]] for of_group in places])
    is_token_GL = firsts["attention_mask"].bool()
    groups = [
        _Group(
            of_group,
            firsts["input_ids"][number][is_token_GL[number]].tolist(),
            [_encode_behind_images(processor, batch[place]) for place in of_group],
        )
        for number, of_group in enumerate(places)
    ]
    if not all(_is_sound(group, image_token_id(processor)) for group in groups):
        return None
    shared = [group for group in groups if len(group.places) > 1]
    longest = max(len(ids) - group.count_common() for group in shared for ids in group.behind)
    cuts = [group.cut(longest) for group in groups]
    if min(cuts) < 1:
        return None
    of_place: dict[int, tuple[int, list[int]]] = {}
    for number, (group, cut) in enumerate(zip(groups, cuts, strict=True)):
        num_more = cut - len(group.first) + len(group.behind[0])
        for place, ids in zip(group.places, group.behind, strict=True):
            of_place[place] = (number, ids[num_more:])
    in_order = [of_place[place] for place in range(len(batch))]
    return PromptBatch(
        _cut_rows(firsts, cuts, pad_id(processor)),
        torch.tensor([number for number, _ in in_order]),
        _pad_left([ids for _, ids in in_order], pad_id(processor)),
    )


def _is_sound(group: _Group, image_id: int) -> bool:
    """Whether the first's ids end with those of its text alone, and every text has some."""
    ids = group.behind[0]
    return (
        all(group.behind)
        and group.first[len(group.first) - len(ids) :] == ids
        and image_id not in ids
    )


def _encode_behind_images(processor: Any, request: Request) -> list[int]:
    """A prompt's ids behind its last image token; all where it shows no image, none if not found.

    The image token stays before the text while it is encoded: tokenizers treat the beginning of a
    text otherwise.
    """
    tokenizer, text, special = processor.tokenizer, request.prompt, False
    if request.images:
        shown = blank_marks(text)
        found = [shown.rfind(token) for token in placeholders(processor)]
        if max(found, default=-1) < 0:
            return []
        text = text[max(found) :]
    else:
        special = adds_special_tokens(text, tokenizer)
    try:
        written = write_out(text, processor)
    except BadRecordError as error:
        raise UserError(f"a question cannot be put to the model: {error}") from error
    plain = tokenizer(written.text, add_special_tokens=special)["input_ids"]
    ids = [token for _, token in splice(plain, written)] if written.literals else list(plain)
    if not request.images:
        return ids
    control = set(tokenizer.convert_tokens_to_ids(sorted(placeholders(processor))))
    places = [place for place, token in enumerate(ids) if token in control]
    return ids[places[-1] + 1 :] if places else []


def _cut_rows(inputs: Inputs, sizes: Sequence[int], fill: int) -> Inputs:
    """The first so many tokens of each row, padded left again; images as they are."""
    is_token = inputs["attention_mask"].bool()
    longest = max(sizes)

    def cut(name: str, rows: torch.Tensor) -> torch.Tensor:
        kept = [row[real][:size] for row, real, size in zip(rows, is_token, sizes, strict=True)]
        value = fill if name == "input_ids" else 0
        return torch.stack([pad(row, (longest - len(row), 0), value=value) for row in kept])

    return {
        name: cut(name, value) if name in TOKEN_KEYS else value for name, value in inputs.items()
    }


def _pad_left(rows: Sequence[Sequence[int]], fill: int) -> Inputs:
    """Ids (B, S), with their mask."""
    longest = max(len(row) for row in rows)
    ids = [[fill] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
