"""Chat templates as models publish them, shortened to what a question and an answer need."""

from __future__ import annotations

_PARTS = (
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
)
_VISION = _PARTS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + _VISION + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL: each image between two control tokens."""

QWEN_THINKING = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}"
    + _VISION
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
"""Qwen3's: only an answer to the last question has been thought about."""

LLAVA_15 = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% endif %}"
    "{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's: without any end token."""

_IMAGES_FIRST = (
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% endif %}"
    "{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
)
LLAVA_MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES_FIRST
    + "{{ ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
    r"{{ ' ' + m['content'][0]['text'] + '<\s> ' }}{% else %}"
    "{{ raise_exception('user and assistant only') }}{% endif %}{% endfor %}"
)
"""LLaVA-NeXT-Mistral's and BakLLaVA's: `</s>` is mistyped, and text."""

VIPLLAVA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '###Human: ' }}{% else %}"
    "{{ '###Assistant: ' }}{% endif %}"
    + _IMAGES_FIRST
    + "{% endfor %}{% if add_generation_prompt %}{{ '###Assistant:' }}{% endif %}"
)
"""ViP-LLaVA's: without any end token."""

GLM = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n" + _VISION + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""GLM's: an answer ends where the next question begins."""
