"""CLIP-Score: how well a record's text and image belong together, says another model.

Paper: Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
https://arxiv.org/abs/2104.08718, equation 1, without its factor, its floor and its prompt.
Equation: score = cos(E_image, E_text) in a CLIP or SigLIP. Keep the highest: the well aligned.
Ours: the text is the whole conversation, questions and answers in their order (with the option
`text: question` the questions alone, as in DICS, https://arxiv.org/abs/2608.30209), as far as the
encoder reads (77 tokens for CLIP, 64 for SigLIP; what follows counts for nothing); the mean over
the images of a record that has several.
Cost: forward (of the encoder named by the option `model`, not of the target): each distinct image
and each distinct text once.
"""

from __future__ import annotations

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The cosine of every record's image and text."""
    return ScoredRecords(context.measured["cosine"], {})
