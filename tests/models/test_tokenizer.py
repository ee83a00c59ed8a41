"""A model whose tokenizer is a SentencePiece file and nothing else, as Vicuna's."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest
import sentencepiece
from google.protobuf import runtime_version
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prism_tune.config.sections import ModelConfig
from prism_tune.data.conversation import render_prompt
from prism_tune.data.encoding.encoder import encode_text
from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import Recipe
from prism_tune.models.assembly.assemble_checkpoint import assemble_checkpoint
from prism_tune.models.processor import load_processor
from prism_tune.models.tokenizer import load_tokenizer

CORPUS = 3 * ["USER: what colour is it? ASSISTANT: red", "is it a circle or a square? yes no"]
OF_THE_FIXTURE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def vicuna_dir(tiny_llava_dir, tmp_path_factory):
    """The tiny LLaVA, its tokenizer as Vicuna's directory has it."""
    directory = tmp_path_factory.mktemp("vicuna") / "model"
    shutil.copytree(tiny_llava_dir, directory, ignore=shutil.ignore_patterns(*OF_THE_FIXTURE))
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=trained,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        normalization_rule_name="identity",  # these two as Llama's has them
        remove_extra_whitespaces=False,
        user_defined_symbols=["<image>"],
        minloglevel=2,
    )
    (directory / "tokenizer.model").write_bytes(trained.getvalue())
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings |= {"pad_token": "<unk>", "image_token": "<image>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def test_it_is_read(vicuna_dir):
    """As sentencepiece itself splits a text, behind the token that begins one."""
    tokenizer = load_tokenizer(str(vicuna_dir))
    own = sentencepiece.SentencePieceProcessor(str(vicuna_dir / "tokenizer.model"))
    text = "USER: what colour is it? ASSISTANT: red"
    assert tokenizer(text).input_ids == [own.bos_id(), *own.encode(text)]
    assert len(tokenizer) == 300


def test_its_processor_writes_it_as_others_do(vicuna_dir, tmp_path):
    """Read back without sentencepiece, it is the same."""
    processor = load_processor(ModelConfig(path=str(vicuna_dir)))
    text = "USER: <image>\nis it red? ASSISTANT:"
    processor.tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    again = load_tokenizer(str(tmp_path))
    assert again(text).input_ids == processor.tokenizer(text).input_ids
    assert processor.tokenizer(text).input_ids == load_tokenizer(str(vicuna_dir))(text).input_ids


def read_processor(path):
    return load_processor(ModelConfig(path=path))


@pytest.mark.parametrize("read", [load_tokenizer, read_processor])
def test_without_sentencepiece_that_is_what_is_asked_for(vicuna_dir, monkeypatch, read):
    """transformers asks for tiktoken, which cannot read the file."""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    with pytest.raises(
        UserError, match=r"SentencePiece file, and sentencepiece is missing"
    ) as said:
        read(str(vicuna_dir))
    assert "pip install --upgrade sentencepiece protobuf" in str(said.value)
    assert "tiktoken" not in str(said.value)


def test_a_protobuf_that_is_older_than_sentencepieces_is_what_is_said(vicuna_dir, monkeypatch):
    """pip installs such a pair: sentencepiece does not name the protobuf that it needs."""

    class Refusing:
        """Older releases of sentencepiece do not ask by themselves."""

        @staticmethod
        def find_spec(name, *_):
            if name == "sentencepiece.sentencepiece_model_pb2":
                raise runtime_version.VersionError("gencode 7.36.1 runtime 6.33.6")

    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    monkeypatch.delattr(sentencepiece, "sentencepiece_model_pb2", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refusing, *sys.meta_path])
    with pytest.raises(UserError, match=r"protobuf is too old .*gencode 7\.36\.1") as said:
        load_tokenizer(str(vicuna_dir))
    assert "tiktoken" not in str(said.value)


@pytest.mark.parametrize("question", ["what colour is it?", "  is it red?", "\nyes"])
def test_pieces_begin_anew_behind_an_image_as_llava_has_it(vicuna_dir, question):
    """`tokenizer_image_token` of LLaVA's mm_utils.py: what is between images is split by itself."""
    processor = load_processor(ModelConfig(path=str(vicuna_dir)))
    own = sentencepiece.SentencePieceProcessor(str(vicuna_dir / "tokenizer.model"))
    before, after = render_prompt(question, True, "vicuna_v1").split("<image>")
    text = render_prompt(question, True, "vicuna_v1", processor)
    image = Image.new("RGB", (28, 28))
    ids = encode_text(text, (), [image], processor)["input_ids"].tolist()
    token = processor.image_token_id
    first = ids.index(token)
    last = len(ids) - ids[::-1].index(token)
    assert set(ids[first:last]) == {token}
    assert [*ids[:first], *ids[last:]] == [own.bos_id(), *own.encode(before), *own.encode(after)]


def test_assembled_it_asks_by_its_chat_template_what_training_asks(vicuna_dir, tmp_path):
    """A server writes prompts by it: the piece behind the image begins anew there, too."""
    language, tower = tmp_path / "language", tmp_path / "tower"
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **text, **heads)).save_pretrained(language)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(vicuna_dir / name, language / name)
    vision = CLIPVisionConfig(
        image_size=28, patch_size=14, **text | {"num_hidden_layers": 2}, **heads
    )
    CLIPVisionModel(vision).save_pretrained(tower)
    CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(tower)
    model = tmp_path / "model"
    assemble_checkpoint(str(tower), str(language), model, Recipe(), chat_format="vicuna_v1")
    processor = load_processor(ModelConfig(path=str(model)))
    message = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "what colour is it?"}],
    }
    asked = processor.apply_chat_template([message], add_generation_prompt=True)
    assert asked == render_prompt("what colour is it?", True, "vicuna_v1", processor)
    assert "<image> \nwhat colour" in asked
