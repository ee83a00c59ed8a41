"""A model family: where a model type of transformers keeps its parts.

The key is `model_type` of the model's config.json; the paths are those of its base model, as
`AutoModel.from_pretrained(...).named_modules()` prints them.
"""

from prism_tune import Family

FAMILIES = {
    "cohere2_vision": Family(
        vision_tower="vision_tower",
        projector="multi_modal_projector",
        language_model="language_model",
    ),
}
