"""Checkpoints as others load them: plain transformers and peft, where prism_tune cannot be had.

    python tests/plain_reload.py LOGITS.safetensors CHECKPOINT...

writes the logits of each on one image and question, in the order given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.modules["prism_tune"] = None  # type: ignore[assignment] - importing it is an ImportError now


def load(directory: Path) -> torch.nn.Module:
    """Full weights, or an adapter over the base model that it names."""
    adapter = directory / "adapter_config.json"
    if not adapter.exists():
        return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    base = json.loads(adapter.read_text())["base_model_name_or_path"]
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, directory)


@torch.no_grad()
def compute_logits(directory: Path) -> torch.Tensor:
    """By the checkpoint's own processor and chat template."""
    processor = AutoProcessor.from_pretrained(directory, backend="pil")
    content = [{"type": "image"}, {"type": "text", "text": "what shape is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(text=text, images=Image.new("RGB", (40, 32), "red"), return_tensors="pt")
    return load(directory).eval()(**inputs).logits[0]


if __name__ == "__main__":
    save_file(
        {str(i): compute_logits(Path(path)) for i, path in enumerate(sys.argv[2:])}, sys.argv[1]
    )
