"""Batched greedy generation equals one-by-one greedy decoding, whatever is batched with what."""

from __future__ import annotations

import random

import pytest
import torch
from support.tiny import draw_image
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig

from prism_tune.config.sections import ModelConfig
from prism_tune.data.conversation import render_prompt
from prism_tune.data.images import open_image
from prism_tune.errors import UserError
from prism_tune.evaluation import generate
from prism_tune.evaluation.decoding.prompts import Request, collate_prompts, encode_batch
from prism_tune.evaluation.generate import Decoder
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor

MAX_NEW_TOKENS = 6
TEXTS = [
    "what shape is it?",
    "is it red?",
    "what color is the large circle on the left side of the picture, if there is one at all?",
    "hm?",
    "Answer the question using a single word or phrase.",
]


@pytest.fixture(scope="module")
def processor(tiny_llava_dir):
    return load_processor(ModelConfig(path=str(tiny_llava_dir)))


@pytest.fixture
def model(tiny_llava_dir):
    return load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)


@pytest.fixture(scope="module")
def requests(processor, tmp_path_factory):
    """Every text without image and with each of three images."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        draw_image(path, 5 * i)
    return [
        Request(
            render_prompt(text, path is not None, "vicuna_v1", processor), (path,) if path else ()
        )
        for text in TEXTS
        for path in (None, *paths)
    ]


def decode(model, processor, *, batch_size=8, num_workers=0):
    return Decoder(
        lambda: model,
        processor,
        template="vicuna_v1",
        batch_size=batch_size,
        num_workers=num_workers,
    )


def answer_all(decoder, requests, max_new_tokens=MAX_NEW_TOKENS):
    answers = {}
    for batch in decoder.answer(requests, max_new_tokens=max_new_tokens):
        answers |= batch
    return answers


@torch.inference_mode()
def answer_alone(model, processor, request):
    """The definition: the most likely next token, one request and one token at a time, no cache."""
    inputs = processor(
        images=[open_image(path) for path in request.images] or None,
        text=[request.prompt],
        return_tensors="pt",
    )
    new_tokens = []
    for _ in range(MAX_NEW_TOKENS):
        logits = model(**inputs, use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token == processor.tokenizer.eos_token_id:
            break
        new_tokens.append(token)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return processor.tokenizer.decode(new_tokens, skip_special_tokens=True).strip()


def test_answers_equal_one_by_one_greedy_decoding(model, processor, requests):
    expected = {request: answer_alone(model, processor, request) for request in requests}
    assert len(set(expected.values())) > len(requests) / 2
    answers = answer_all(decode(model, processor), requests)
    assert {request: answer.text for request, answer in answers.items()} == expected


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_answers_do_not_depend_on_batch_size_or_order(model, processor, requests, batch_size):
    expected = answer_all(decode(model, processor, batch_size=7), requests)
    shuffled = random.Random(batch_size).sample(requests, len(requests))
    assert answer_all(decode(model, processor, batch_size=batch_size), shuffled) == expected


def test_what_may_pass_the_window_is_said_of_the_answer(model, processor, requests):
    decoder = decode(model, processor)
    answers = answer_all(decoder, requests)
    assert not any(answer.beyond_window for answer in answers.values())
    lengths = {r: decoder._lengths[r] + a.num_new_tokens for r, a in answers.items()}
    window = sorted(lengths.values())[10]
    model.config.get_text_config().max_position_embeddings = window
    answers = answer_all(decode(model, processor), requests)
    beyond = {request for request, answer in answers.items() if answer.beyond_window}
    assert beyond == {request for request, length in lengths.items() if length > window}


def test_worker_processes_do_not_change_answers(model, processor, requests):
    expected = answer_all(decode(model, processor), requests)
    decoder = decode(model, processor, batch_size=6, num_workers=2)
    assert answer_all(decoder, requests) == expected


def test_batch_is_padded_left_with_one_image_each_in_order(processor, requests):
    short, long = requests[13], requests[8]
    inputs = collate_prompts(processor, [short, long])
    num_padded = (inputs["attention_mask"] == 0).sum(dim=1).tolist()
    assert num_padded[0] > 0
    assert num_padded[1] == 0
    assert inputs["attention_mask"][0].tolist() == sorted(inputs["attention_mask"][0].tolist())
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    assert (inputs["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [4, 0]


def test_text_only_batch_has_no_pixels(processor, requests):
    assert "pixel_values" not in collate_prompts(processor, [requests[0], requests[4]])


def test_beginning_of_sequence_stands_once(tiny_llava_dir, requests):
    """Whether the tokenizer adds it (Llama's does) or the chat template wrote it already."""
    processor = load_processor(ModelConfig(path=str(tiny_llava_dir)))
    bos = processor.tokenizer.bos_token_id
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    for prompt in (requests[0].prompt, f"<s>{requests[0].prompt}"):
        ids = collate_prompts(processor, [Request(prompt)])["input_ids"][0].tolist()
        assert ids[0] == bos
        assert ids.count(bos) == 1


def test_equal_requests_are_computed_once(model, processor, requests):
    decoder = decode(model, processor, batch_size=1)
    batches = list(decoder.answer([requests[1]] * 5, max_new_tokens=2))
    assert [len(batch) for batch in batches] == [1]


def test_questions_about_an_image_stand_together_the_longest_first(model, processor, requests):
    shown = [request for request in requests if request.images]
    first = next(decode(model, processor, batch_size=5).answer(shown, max_new_tokens=1))
    assert {request.images for request in first} == {shown[0].images}
    assert next(iter(first)).prompt.count(TEXTS[2]) == 1


def test_the_longest_prompts_come_first(model, processor, requests):
    shown = [request for request in requests if request.images == requests[1].images]
    first = next(decode(model, processor, batch_size=2).answer(shown, max_new_tokens=1))
    assert [any(text in r.prompt for text in (TEXTS[2], TEXTS[4])) for r in first] == [True, True]


def test_an_image_is_encoded_once_for_its_questions(model, processor, requests, monkeypatch):
    shown = [request for request in requests if request.images]
    encode, seen = type(model.model).get_image_features, []

    def count(self, pixel_values, **options):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, **options)

    monkeypatch.setattr(type(model.model), "get_image_features", count)
    assert len(answer_all(decode(model, processor, batch_size=20), shown)) == 15
    assert seen == [3]


def ids_of(part, row):
    return part["input_ids"][row][part["attention_mask"][row].bool()].tolist()


def join_rows(batch):
    """The ids of each request: its beginning, and how it goes on."""
    return [
        ids_of(batch.heads, head) + (ids_of(batch.rests, row) if batch.rests else [])
        for row, head in enumerate(batch.head_of_B)
    ]


@pytest.mark.parametrize("word", ["<image>", "</s>"])
@pytest.mark.parametrize("shows", [True, False])
def test_the_name_of_a_control_token_in_a_question_is_text(processor, requests, word, shows):
    images = requests[1].images if shows else ()
    texts = ("which color is it?", f"what does the word {word} in red mean?")
    asked = [Request(render_prompt(t, shows, "vicuna_v1", processor), images) for t in texts]
    for batch in (asked, asked[::-1]):
        rows = join_rows(encode_batch(processor, batch, shares=True))
        whole = collate_prompts(processor, batch)
        assert rows == [ids_of(whole, row) for row in (0, 1)]
        num_tokens = {row.count(processor.image_token_id) for row in rows}
        assert len(num_tokens) == 1
        assert (num_tokens == {0}) != shows
        read = processor.tokenizer.decode(rows[batch.index(asked[1])])
        assert f"word{word}in red mean".replace(" ", "") in read.replace(" ", "")


def test_what_prompts_begin_with_is_read_once(processor, requests):
    """One beginning for each image, and one for those without; padding stands before, no more."""
    batch = encode_batch(processor, requests, shares=True)
    assert batch.head_of_B.tolist() == [0, 1, 2, 3] * 5
    whole = collate_prompts(processor, requests)
    assert join_rows(batch) == [ids_of(whole, row) for row in range(len(requests))]
    assert torch.equal(batch.heads["pixel_values"], whole["pixel_values"][:3])
    alone = encode_batch(processor, requests[:4], shares=True)
    assert alone.rests == {}


def test_prompts_of_one_length_need_no_padding(model, processor, requests):
    """Nothing is masked then, which attention kernels take a shortcut for."""
    texts = ["is it red?", "it is red?"]
    asked = [
        Request(render_prompt(text, True, "vicuna_v1", processor), requests[1].images)
        for text in texts
    ]
    batch = encode_batch(processor, asked, shares=True)
    assert batch.rests["attention_mask"].all()
    assert batch.heads["attention_mask"].all()
    expected = {request: answer_alone(model, processor, request) for request in asked}
    answers = answer_all(decode(model, processor), asked)
    assert {request: answer.text for request, answer in answers.items()} == expected


def test_shared_memory_is_measured_by_the_batch_with_most_images(
    model, processor, requests, monkeypatch
):
    """The longest prompts may be questions about one image, which is small to hand over."""
    long = [Request(f"{requests[9].prompt} {n}", requests[9].images) for n in range(4)]
    short = [requests[1], requests[2], requests[3]]
    measured = []

    def measure(num_workers, num_bytes):
        measured.append(num_bytes)
        return 0

    monkeypatch.setattr(generate, "fit_workers", measure)
    answer_all(decode(model, processor, batch_size=4, num_workers=2), [*short, *long], 1)
    pixels = 3 * 3 * 28 * 28 * 4
    assert measured[0] > pixels


def test_rows_that_end_leave_and_others_join(model, processor, requests, monkeypatch):
    """Batches of 8: the last two of one go on while the next is read."""
    expected = answer_all(decode(model, processor, batch_size=20), requests, 12)
    forward, sizes = type(model).forward, []

    def count(self, **inputs):
        sizes.append((len(inputs["input_ids"]), inputs["input_ids"].shape[1]))
        return forward(self, **inputs)

    monkeypatch.setattr(type(model), "forward", count)
    assert answer_all(decode(model, processor, batch_size=8), requests, 12) == expected
    steps = [rows for rows, length in sizes if length == 1]
    assert max(steps) <= 8 + 2
    assert min(steps) < 8


def test_no_requests(model, processor):
    assert answer_all(decode(model, processor), []) == {}


def test_checkpoints_own_sampling_and_penalty_do_not_reach_the_answers(model, processor, requests):
    expected = answer_all(decode(model, processor), requests)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, top_k=0, repetition_penalty=9.0, max_length=20
    )
    assert answer_all(decode(model, processor), requests) == expected


def test_new_tokens_are_counted_and_cut_answers_marked(model, processor, requests):
    answers = answer_all(decode(model, processor), requests, max_new_tokens=3).values()
    assert {answer.num_new_tokens for answer in answers if not answer.finished} == {3}


def test_generation_stops_at_the_templates_end_token(model, processor, requests):
    """Made the most likely token everywhere, the template's end token gives blank answers."""
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    head = model.get_output_embeddings()
    model.set_output_embeddings(_Always(head, end))
    decoder = Decoder(lambda: model, processor, template="chatml", batch_size=4, num_workers=0)
    answers = answer_all(decoder, requests[:4])
    assert {(a.text, a.num_new_tokens, a.finished) for a in answers.values()} == {("", 1, True)}


def test_head_is_computed_on_the_last_position_only(model, processor, requests):
    lengths = []
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[1])
    )
    answer_all(decode(model, processor), requests)
    assert set(lengths) == {1}


def test_out_of_memory_halves_the_batch(model, processor, requests, monkeypatch, caplog):
    expected = answer_all(decode(model, processor), requests)
    forward = type(model).forward
    sizes = []

    def forward_few(self, **inputs):
        sizes.append(len(inputs["attention_mask"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, **inputs)

    monkeypatch.setattr(type(model), "forward", forward_few)
    assert answer_all(decode(model, processor, batch_size=12), requests) == expected
    assert [size for size in sizes if size > 3] == [12, 6]
    assert "going on with batches of 3" in caplog.text


def test_out_of_memory_while_answers_grow_loses_none(model, processor, requests, monkeypatch):
    """Rows that go on from an earlier batch are asked again with those of this one."""
    expected = answer_all(decode(model, processor), requests)
    forward = type(model).forward
    calls = []

    def fail_once(self, **inputs):
        calls.append(len(inputs["attention_mask"]))
        if len(calls) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, **inputs)

    monkeypatch.setattr(type(model), "forward", fail_once)
    assert answer_all(decode(model, processor, batch_size=6), requests) == expected


def test_out_of_memory_with_one_question_is_an_error(model, processor, requests, monkeypatch):
    def fail(self, **inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", fail)
    with pytest.raises(UserError, match=r"evaluation\.dtype"):
        answer_all(decode(model, processor), requests)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_image_is_one_clear_message(model, processor, requests, tmp_path, num_workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    asked = [*requests, Request(requests[1].prompt, (broken,))]
    with pytest.raises(UserError, match=r"broken\.png: cannot be read as an image") as caught:
        answer_all(decode(model, processor, num_workers=num_workers), asked)
    assert "Traceback" not in str(caught.value)


def test_prompts_beyond_the_window_are_reported(model, processor, requests, caplog):
    next(decode(model, processor).answer(requests[:2], max_new_tokens=1))
    assert "window" not in caplog.text
    long = Request("is it red? " * 400)
    answer_all(decode(model, processor), [requests[0], long], max_new_tokens=8)
    assert "1 prompt(s) with 8 new tokens may pass the model's window of 512 tokens" in caplog.text


class _Always(torch.nn.Module):
    def __init__(self, head, token):
        super().__init__()
        self.weight = head.weight
        self.bias = torch.nn.functional.one_hot(torch.tensor(token), head.weight.shape[0]) * 1e6

    def forward(self, hidden):
        return hidden @ self.weight.T + self.bias
