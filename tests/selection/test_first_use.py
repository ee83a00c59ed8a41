"""A selection stops where its features would mean nothing, in place of a draw called PRISM."""

from __future__ import annotations

import json
import shutil

import pytest

from prism_tune.errors import UserError


def test_a_processor_that_does_not_write_the_models_image_token(
    workplace, tiny_llava_dir, tmp_path
):
    model = shutil.copytree(tiny_llava_dir, tmp_path / "other")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "image_token_index": 299}))
    with pytest.raises(UserError, match=r"writes the tokens \[3\] for an image, and .* 299 the"):
        workplace.select(model__path=model)


@pytest.mark.parametrize("features", ["visual", "pair"])
def test_a_model_that_does_not_see(workplace, monkeypatch, features):
    def put_nothing(self, *args, **options):
        output = see(self, *args, **options)
        output.pooler_output = [tokens * 0 for tokens in output.pooler_output]
        return output

    from transformers import LlavaModel

    see = LlavaModel.get_image_features
    monkeypatch.setattr(LlavaModel, "get_image_features", put_nothing)
    with pytest.raises(UserError, match="'llava' gives two different images the same features"):
        workplace.select(selection__features=features)


@pytest.mark.parametrize("scorer", ["prism", "leverage"])
def test_images_that_are_all_the_same(workplace, scorer):
    for path in workplace.images.glob("[1-9]*.png"):
        shutil.copyfile(workplace.images / "0.png", path)
    with pytest.raises(UserError, match=r"features of all image records are the same \(1 distinct"):
        workplace.select(selection__scorer=scorer)


def test_answers_cannot_measure_a_model_that_looks_ahead(workplace, monkeypatch):
    monkeypatch.setattr(
        "transformers.models.llama.modeling_llama.create_causal_mask",
        lambda *, inputs_embeds, **_: inputs_embeds.new_zeros(
            len(inputs_embeds), 1, *2 * inputs_embeds.shape[1:2]
        ),
    )
    with pytest.raises(UserError, match="the labels leak"):
        workplace.select(selection__scorer="perplexity")
