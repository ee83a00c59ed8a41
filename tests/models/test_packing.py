"""Packed rows against the same records in a padded batch: loss, gradients; what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from PIL import Image
from support.tiny import build_processor, build_tokenizer, draw_image
from support.tiny_families import TINY_FAMILIES
from support.tiny_processors import TINY_PROCESSORS, build_family
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaForConditionalGeneration,
    modeling_flash_attention_utils,
)

from prism_tune.config.sections import TrainingConfig
from prism_tune.data.collator import Collator, PackingCollator
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.errors import ConfigError
from prism_tune.models.families import FAMILIES, parts
from prism_tune.models.packing import PACKED_DECODERS, Packing
from prism_tune.models.tuning import prepare_tuning

TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
DECODERS = [n for n in PACKED_DECODERS if not n.endswith("_text") and n != "cohere2"]


def encode(processor, text, images=(), num_labels=4):
    """An example as the dataset gives it, with labels on its end."""
    given = "".join(f"{processor.image_token}\n" for _ in images) + text
    inputs = processor(images=list(images) or None, text=[given], return_tensors="pt")
    example = {key: value[0] if key in TOKEN_KEYS else value for key, value in inputs.items()}
    labels = torch.full_like(example["input_ids"], IGNORED_LABEL)
    labels[-num_labels:] = example["input_ids"][-num_labels:]
    return {**example, "labels": labels}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        draw_image(folder / f"{number}.png", number)
    # Large enough for rows and columns of image tokens where a family counts these apart.
    return [Image.open(folder / f"{n}.png").convert("RGB").resize((112, 84)) for n in range(3)]


def mixed(processor, pictures):
    """Lengths, modalities and numbers of images differ; the first has two images."""
    return [
        encode(processor, "which is larger? the second one", pictures[:2]),
        encode(processor, "is 4 even? yes"),
        encode(processor, "what shape is it? a square", pictures[2:], num_labels=6),
        encode(processor, "why? because of this and that, and so on and on", num_labels=9),
    ]


def run(model, arguments):
    """The loss per labelled token, and every gradient."""
    model.zero_grad()
    loss = model(**arguments).loss
    loss.backward()
    return loss.detach(), {
        name: value.grad.clone()
        for name, value in model.named_parameters()
        if value.grad is not None
    }


def require_equal(model, processor, examples):
    model.train()
    expected, expected_gradients = run(model, Collator(processor)(examples))
    row = PackingCollator(processor)(examples)
    loss, gradients = run(model, Packing(model).arguments(row))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max().item()
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-3, atol=1e-4 * scale + 1e-7
        )


def load_llava(directory, attention):
    model = AutoModelForImageTextToText.from_pretrained(directory, attn_implementation=attention)
    return prepare_tuning(model, TrainingConfig(tuning="full"), weights_dtype=torch.float32)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_packed_llava_row_equals_its_records(tiny_llava_dir, pictures, attention):
    processor = build_processor(build_tokenizer())
    require_equal(load_llava(tiny_llava_dir, attention), processor, mixed(processor, pictures))


def test_a_row_of_text_alone_trains_as_unpacked(tiny_llava_dir):
    processor = build_processor(build_tokenizer())
    examples = [encode(processor, text) for text in ("is 4 even? yes", "why? because it is so")]
    require_equal(load_llava(tiny_llava_dir, "sdpa"), processor, examples)


NOT_PACKED = {"qwen3_5", "qwen3_5_moe", "gemma3"}


@pytest.mark.parametrize("name", sorted(NOT_PACKED))
def test_what_reaches_from_record_to_record_is_refused(name):
    """Linear attention hands a state on; Gemma 3's images see each other in both directions."""
    with pytest.raises(ConfigError, match=f"not possible for the family '{name}', whose"):
        Packing(build_family(name)[0])


@pytest.mark.parametrize("name", sorted(TINY_PROCESSORS.keys() - NOT_PACKED))
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_packed_row_of_every_family_equals_its_records(name, attention, pictures):
    model, processor = build_family(name)
    model.set_attn_implementation(attention)
    tuned = prepare_tuning(model, TrainingConfig(tuning="full"), weights_dtype=torch.float32)
    require_equal(tuned, processor, mixed(processor, pictures))


def tiny_decoder(model_type, **extra):
    options = {
        "vocab_size": 326,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sliding_window": None,
        **extra,
    }
    if model_type == "phi":
        del options["head_dim"]
    return AutoConfig.for_model(model_type, **options)


def llava_over(decoder):
    torch.manual_seed(0)
    vision = TINY_FAMILIES["llava"]().config.vision_config
    config = LlavaConfig(
        vision_config=vision, text_config=decoder, image_token_index=3, image_seq_length=4
    )
    model = LlavaForConditionalGeneration(config)
    return prepare_tuning(model, TrainingConfig(tuning="full"), weights_dtype=torch.float32)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_language_model_that_is_let_through_stays_within_its_records(decoder, pictures):
    processor = build_processor(build_tokenizer())
    require_equal(llava_over(tiny_decoder(decoder)), processor, mixed(processor, pictures))


def test_a_sliding_window_is_kept(pictures):
    """The kernel of one record knows no window, so these models keep the mask."""
    processor = build_processor(build_tokenizer())
    model = llava_over(tiny_decoder("mistral", sliding_window=5))
    require_equal(model, processor, mixed(processor, pictures))


class ReferenceFlash:
    """The two functions of flash-attn, on any device: as its documentation defines them."""

    def __init__(self):
        self.cumulative_lengths = []

    def attend(self, query, key, value, **options):
        return torch.stack(
            [self._attend(*row, **options) for row in zip(query, key, value, strict=True)]
        )

    def attend_varlen(self, query, key, value, cu_seqlens_q, cu_seqlens_k=None, **options):
        ends = [int(end) for end in cu_seqlens_q]
        self.cumulative_lengths.append(ends)
        pieces = [[t[start:end] for t in (query, key, value)] for start, end in pairwise(ends)]
        return torch.cat([self._attend(*piece, **options) for piece in pieces])

    def _attend(self, query, key, value, causal):
        groups = query.shape[1] // key.shape[1]
        q, k, v = (t.transpose(0, 1) for t in (query, key, value))
        k, v = k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if causal:
            hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(0, 1)


@pytest.fixture
def flash(monkeypatch):
    """In place of flash-attn's functions, and of what transformers finds these to take."""
    reference = ReferenceFlash()
    functions = (reference.attend, reference.attend_varlen, None, None, None)
    taken = (lambda is_causal, **_: {"causal": is_causal}, None)
    monkeypatch.setattr(
        modeling_flash_attention_utils,
        "lazy_import_flash_attention",
        lambda _: (functions, taken),
    )
    return reference


def build_tuned(name):
    if name == "llava":
        return llava_over(tiny_decoder("llama")), build_processor(build_tokenizer())
    model, processor = build_family(name)
    training = TrainingConfig(tuning="full")
    return prepare_tuning(model, training, weights_dtype=torch.float32), processor


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_flash_attention_is_told_where_records_begin(flash, pictures, name):
    """In the decoder alone; the tower has images, none of which sees another."""
    tuned, processor = build_tuned(name)
    examples = mixed(processor, pictures)
    expected, _ = run(tuned, Collator(processor)(examples))
    tuned.config._attn_implementation = "flash_attention_2"  # and so of all configs within
    loss, _ = run(tuned, Packing(tuned).arguments(PackingCollator(processor)(examples)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    lengths = torch.tensor([0] + [len(example["input_ids"]) for example in examples])
    num_layers = tuned.config.get_text_config().num_hidden_layers
    seen = flash.cumulative_lengths[-num_layers:]
    assert seen == [lengths.cumsum(0).tolist()] * num_layers


OF_THE_RECORDS = {
    "sdpa": {"record_lengths"},
    "flash_attention_2": {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"},
}


@pytest.mark.parametrize("name", sorted({"llava", *TINY_PROCESSORS} - NOT_PACKED))
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
@pytest.mark.usefixtures("flash")
def test_the_vision_tower_hears_nothing_of_the_records(name, attention, pictures):
    tuned, processor = build_tuned(name)
    found = parts(tuned)
    found.language_model.config._attn_implementation = attention
    tower, seen = found.vision_tower, []
    forward = tower.forward

    def record(*arguments, **options):
        seen.append(set(options))
        return forward(*arguments, **options)

    tower.forward = record
    arguments = Packing(tuned).arguments(PackingCollator(processor)(mixed(processor, pictures)))
    if name == "llava":
        assert OF_THE_RECORDS[attention] < set(arguments)
    with torch.no_grad():
        tuned(**arguments)
    assert seen
    assert not any(options & OF_THE_RECORDS[attention] for options in seen)


def test_no_token_pays_for_the_rest_of_the_row(tiny_llava_dir, monkeypatch):
    """Under sdpa the kernel sees one record at a time, and no mask."""
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def record(query, *rest, attn_mask=None, **options):
        seen.append((query.shape[2], attn_mask, options["is_causal"]))
        return kernel(query, *rest, attn_mask=attn_mask, **options)

    processor = build_processor(build_tokenizer())
    examples = [encode(processor, text) for text in ("is 4 even? yes", "why? because it is so")]
    model = load_llava(tiny_llava_dir, "sdpa")
    arguments = Packing(model).arguments(PackingCollator(processor)(examples))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    model(**arguments)
    vision_layers = model.config.vision_config.num_hidden_layers
    lengths = [len(example["input_ids"]) for example in examples] + [4]  # and the dummy image's
    layers = model.config.text_config.num_hidden_layers
    assert seen[vision_layers:] == [(length, None, True) for length in lengths] * layers


def test_what_cannot_be_packed_is_refused_by_name(tiny_llava_dir, monkeypatch):
    with pytest.raises(ConfigError, match=r"not possible for the language model 'olmo', whose"):
        Packing(llava_over(tiny_decoder("olmo")))
    model = load_llava(tiny_llava_dir, "sdpa")
    model.config.model_type = "llava_of_tomorrow"
    monkeypatch.setattr(
        "prism_tune.models.families.FAMILIES", {"llava_of_tomorrow": FAMILIES["llava"]}
    )
    with pytest.raises(ConfigError, match=r"the family 'llava_of_tomorrow'.*possible: llava, "):
        Packing(model)
