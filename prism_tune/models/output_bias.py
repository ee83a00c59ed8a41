"""A language model whose output layer has a bias (Phi-2) -> one without, as a LLaVA needs it.

Shape legend: V vocabulary, D width.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prism_tune.errors import UserError

logger = logging.getLogger(__name__)

_FINAL_NORMS = ("final_layernorm", "norm")


@torch.no_grad()
def fold_output_bias(language_model: PreTrainedModel) -> float:
    """Move the bias of the output layer into the bias of the final norm, as far as it goes.

    Logits are W (g x + c) + b with g and c of the final norm. The change d of c that makes W d
    nearest to b (least squares over the vocabulary; a constant added to all logits changes no
    probability and is left out) takes the bias's place. What remains of b is dropped: this is an
    approximation, and the tuning that follows learns from there.

    Returns:
        The share of the bias's variance that was dropped; 0 where there was no bias.

    Raises:
        UserError: the final norm has no bias to take it.
    """
    head: Any = language_model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is None:
        return 0.0
    norm = _final_norm(language_model)
    weight_VD = head.weight.double()
    weight_VD = weight_VD - weight_VD.mean(dim=0)
    bias_V = head.bias.double()
    bias_V = bias_V - bias_V.mean()
    change_D = torch.linalg.lstsq(weight_VD.T @ weight_VD, (weight_VD.T @ bias_V)[:, None])
    shift_D = change_D.solution[:, 0]
    dropped = float((weight_VD @ shift_D - bias_V).var() / bias_V.var().clamp_min(1e-30))
    norm.bias.data += shift_D.to(norm.bias.dtype)
    head.bias = None
    logger.warning(
        "%s: the bias of its output layer is folded into the final norm; %.1f %% of its variance "
        "could not be and is dropped",
        type(language_model).__name__,
        100 * dropped,
    )
    return dropped


def _final_norm(language_model: PreTrainedModel) -> nn.LayerNorm:
    decoder = language_model.base_model
    for name in _FINAL_NORMS:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.LayerNorm) and norm.bias is not None:
            return norm
    raise UserError(
        f"{type(language_model).__name__}: its output layer has a bias, and its final norm has "
        "none that could take it"
    )
