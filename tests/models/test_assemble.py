"""LLaVAs assembled from tiny random towers and language models, read back by plain transformers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.tiny import build_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import (
    Recipe,
    VisionTower,
    assemble_llava,
    standardise_projector,
)

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 14}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def clip():
    return CLIPVisionModel(CLIPVisionConfig(**SIZES, intermediate_size=48, image_size=28))


def siglip():
    return SiglipVisionModel(SiglipVisionConfig(**SIZES, intermediate_size=48, image_size=30))


def dinov2():
    return Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=2, image_size=28))


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(vocab_size=320, **settings):
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **TEXT, **settings))


def qwen2(vocab_size=320, **settings):
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab_size, **TEXT, **settings))


def text_tokenizer(**special) -> PreTrainedTokenizerFast:
    """Ten words and two special tokens; no image token."""
    words = ["<unk>", "<end>", *["what", "is", "it", "a", "red", "circle", "or", "blue", "square"]]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def assemble(tower, language_model, tokenizer=None, **recipe):
    vision = VisionTower(tower.eval(), MEAN, STD)
    return assemble_llava(vision, language_model, tokenizer or build_tokenizer(), Recipe(**recipe))


@pytest.mark.parametrize("build_lm", [llama, qwen2])
@pytest.mark.parametrize(
    ("build_tower", "strategy"), [(clip, "default"), (siglip, "full"), (dinov2, "default")]
)
def test_plain_transformers_reads_back_the_same_model(tmp_path, build_tower, strategy, build_lm):
    model, processor = assemble(build_tower(), build_lm())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    inputs = AutoProcessor.from_pretrained(tmp_path)(
        text="<image>what color is it?", images=Image.new("RGB", (40, 30)), return_tensors="pt"
    )
    assert type(loaded).__name__ == "LlavaForConditionalGeneration"
    assert loaded.config.vision_feature_select_strategy == strategy
    assert int((inputs["input_ids"] == loaded.config.image_token_id).sum()) == 4
    assert loaded.config.image_seq_length == 4
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_the_parts_keep_their_weights():
    tower, language_model = dinov2(), llama()
    weights = {name: value.clone() for name, value in language_model.model.state_dict().items()}
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        before = tower.eval()(pixels).last_hidden_state
        model, _ = assemble(tower, language_model)
        after = model.model.vision_tower(pixels).last_hidden_state
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(dict(model.model.language_model.state_dict()), weights)


def test_images_are_padded_resized_and_normalised_as_the_tower_expects():
    _, processor = assemble(clip(), llama())
    pixels = processor.image_processor(Image.new("RGB", (60, 20), "red"), return_tensors="pt")
    pixels_CHW = pixels["pixel_values"][0]
    assert pixels_CHW.shape == (3, 28, 28)
    red = [(1 - 0.1) / 0.4, (0 - 0.2) / 0.5, (0 - 0.3) / 0.6]
    assert pixels_CHW[:, 14, 14].tolist() == pytest.approx(red, abs=1e-5)
    # Above and below lies the mean colour, rounded down to bytes.
    assert pixels_CHW[:, 0, 0].abs().max() < 0.01


def test_the_chat_template_is_kept_or_replaced():
    tokenizer = build_tokenizer()
    _, processor = assemble(clip(), llama(), tokenizer)
    assert processor.chat_template == tokenizer.chat_template
    _, processor = assemble(clip(), llama(), build_tokenizer(), chat_template="{{ messages }}")
    assert processor.chat_template == "{{ messages }}"


def test_an_image_token_of_the_vocabulary_is_used_without_a_resize():
    model, processor = assemble(clip(), llama(), image_token="<image>")
    assert model.config.image_token_id == 3
    assert model.get_input_embeddings().weight.shape == (320, 32)
    assert processor.tokenizer.pad_token == "<pad>"


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_get_rows_that_are_the_mean_of_the_old(tmp_path, tied):
    tokenizer = text_tokenizer(eos_token="<end>", pad_token="<end>")
    language_model = llama(len(tokenizer), tie_word_embeddings=tied)
    old = language_model.get_input_embeddings().weight.detach().clone()
    old_head = language_model.lm_head.weight.detach().clone()
    model, processor = assemble(clip(), language_model, tokenizer)
    assert processor.tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [11, 12]
    assert model.config.image_token_id == 11
    assert model.config.text_config.vocab_size == 13
    new = model.get_input_embeddings().weight
    torch.testing.assert_close(new[:11], old)
    torch.testing.assert_close(new[11], old.mean(0))
    torch.testing.assert_close(model.lm_head.weight[12], old_head.mean(0))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight)


def test_spare_rows_of_the_vocabulary_are_used_before_new_ones():
    tokenizer = text_tokenizer(eos_token="<end>", unk_token="<unk>")
    model, _ = assemble(clip(), qwen2(16), tokenizer)
    assert model.config.image_token_id == 11
    assert model.get_input_embeddings().weight.shape == (16, 32)


def test_padding_is_never_the_token_that_ends_an_answer():
    tokenizer = text_tokenizer(eos_token="<end>", pad_token="<end>", unk_token="<unk>")
    model, processor = assemble(clip(), llama(16), tokenizer)
    assert processor.tokenizer.pad_token == "<unk>"
    assert model.generation_config.pad_token_id == 0


def test_another_image_size_where_the_tower_interpolates():
    model, processor = assemble(dinov2(), llama(), image_size=56, feature_layer=2)
    inputs = processor(text="<image>", images=Image.new("RGB", (9, 9)), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 56, 56)
    assert inputs["input_ids"].shape == (1, 16)
    assert model(**inputs).logits.shape == (1, 16, 320)


def test_another_image_size_where_it_does_not():
    with pytest.raises(UserError, match=r"cannot take images of 56 px \(its own size: 28\)"):
        assemble(clip(), llama(), image_size=56)


def test_a_layer_the_tower_does_not_have():
    with pytest.raises(UserError, match=r"feature_layer=4: .* the hidden states -4 to 3"):
        assemble(clip(), llama(), feature_layer=4)


def test_a_tower_with_tokens_that_nobody_names_is_refused():
    config = Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, image_size=28)
    tower = Dinov2WithRegistersModel(config)
    tower.config.num_register_tokens = 1
    with pytest.raises(UserError, match="9 tokens for 4 patches"):
        assemble(tower, llama())


def test_a_model_that_is_no_plain_vision_tower_is_refused():
    config = Dinov2Config(**SIZES, mlp_ratio=2, image_size=28)
    with pytest.raises(UserError, match="would load it as Dinov2Model"):
        assemble(Dinov2ForImageClassification(config), llama())
    pair = CLIPConfig(
        text_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        vision_config={**SIZES, "intermediate_size": 8, "image_size": 28},
    )
    with pytest.raises(UserError, match="CLIPModel: expected a vision transformer"):
        assemble(CLIPModel(pair), llama())


def test_a_language_model_with_a_biased_output_layer_is_refused():
    config = PhiConfig(vocab_size=320, **{**TEXT, "num_key_value_heads": 4})
    with pytest.raises(UserError, match=r"PhiForCausalLM: .* output layer has no bias"):
        assemble(clip(), PhiForCausalLM(config))


def draw_pixels(num_images=40):
    """Images with a large constant part and small differences, as real features have."""
    return 3 + 0.2 * torch.randn(num_images, 3, 28, 28)


def project(model, pixels):
    return torch.stack(model.get_image_features(pixels).pooler_output).detach()


@pytest.mark.parametrize("build_tower", [clip, siglip, dinov2])
def test_standardised_image_tokens_are_centred_and_scaled_like_word_embeddings(build_tower):
    model, _ = assemble(build_tower(), llama(initializer_range=0.3))
    size = model.config.vision_config.image_size
    pixels = 3 + 0.2 * torch.randn(40, 3, size, size)
    standardise_projector(model, pixels)
    tokens_ND = project(model, pixels).flatten(0, 1)
    words_std = model.get_input_embeddings().weight.std().item()
    assert tokens_ND.mean(0).abs().max() < 1e-4
    assert tokens_ND.std(0).mean().item() == pytest.approx(words_std, rel=1e-3)


def test_standardised_image_tokens_tell_images_apart():
    model, _ = assemble(clip(), llama())
    pixels = draw_pixels()

    def spread():
        """Share of the tokens' energy that differs between images."""
        tokens_BTD = project(model, pixels)
        return ((tokens_BTD - tokens_BTD.mean(0)).norm() / tokens_BTD.norm()).item()

    assert spread() < 0.7
    standardise_projector(model, pixels)
    assert spread() > 0.7


def test_linear_1_sees_standardised_features():
    """linear_1(h) = W1 (h - mu) / sigma with W1 ~ N(0, 1/V): zero mean, unit mean square."""
    model, _ = assemble(dinov2(), llama(), feature_layer=2)
    pixels = draw_pixels()
    standardise_projector(model, pixels)
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[2][:, 1:]
    features_NV = hidden.flatten(0, 1)
    linear = model.model.multi_modal_projector.linear_1
    inner_weight = linear.weight * features_NV.std(0)
    expected = (features_NV - features_NV.mean(0)) / features_NV.std(0) @ inner_weight.T
    torch.testing.assert_close(linear(features_NV), expected, rtol=1e-4, atol=1e-4)
    assert inner_weight.square().mean().item() * 24 == pytest.approx(1, abs=0.15)


def test_a_feature_that_never_varies_stays_harmless():
    model, _ = assemble(clip(), llama())
    varied = draw_pixels()
    with torch.no_grad():
        for block in model.model.vision_tower.encoder.layers:
            block.mlp.fc2.weight[5] = 0
            block.self_attn.out_proj.weight[5] = 0
        model.model.vision_tower.embeddings.patch_embedding.weight[5] = 0
        model.model.vision_tower.embeddings.position_embedding.weight[:, 5] = 7.0
        model.model.vision_tower.pre_layrnorm = torch.nn.Identity()
    standardise_projector(model, varied)
    assert project(model, varied).isfinite().all()
    assert model.model.multi_modal_projector.linear_1.weight[:, 5].abs().max() == 0


def test_the_seed_decides_the_random_weights():
    model, _ = assemble(clip(), llama())
    pixels = draw_pixels(8)
    weights = []
    for seed in (0, 0, 1):
        standardise_projector(model, pixels, seed=seed)
        weights.append(model.model.multi_modal_projector.linear_2.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_a_bfloat16_model_stays_bfloat16():
    model, _ = assemble(clip(), llama().bfloat16())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    standardise_projector(model, draw_pixels())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
