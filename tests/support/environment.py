"""The environment of tests: the same on every machine, whatever its user has set.

Importing it makes it so, before anything that reads variables as it is imported: typer,
transformers, datasets, huggingface_hub, DeepSpeed.
"""

from __future__ import annotations

import os
import sys
import tempfile

_PREFIXES = ("SLURM_", "WANDB_", "HF_", "HUGGING", "TRANSFORMERS_", "OPENAI_", "GIT_")
_NAMES = {
    # of torchrun, where the tests run in one of its processes
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    # of the scripts
    *("LAUNCH", "LAUNCHER", "NPROC", "SEEDS", "ROWS", "TFLOPS"),
    # of this package; PRISM_TUNE_VENV and the like are for the scripts that tests run
    *("PRISM_TUNE_POOL_CACHE", "PRISM_TUNE_TRACEBACK", "PRISM_TUNE_PLUGINS"),
    # of what typer and rich print: how wide, and whether in colours
    *("COLUMNS", "TERMINAL_WIDTH", "GITHUB_ACTIONS", "PY_COLORS", "FORCE_COLOR"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE"),
}
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")

_FIXED = {
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
}

_ABSENT = ("bitsandbytes", "flash_attn", "liger_kernel", "mlflow", "tensorboard", "tensorboardX")
"""Packages that tests take to be missing, installed or not; None in `sys.modules` hides one."""

_hub = tempfile.TemporaryDirectory(prefix="prism_tune-hub-")
"""Of models and datasets that tests fetch from servers of their own; gone with this process."""


def _isolate() -> None:
    """Make this process's environment, and so that of what it starts, one that tests can rely on.

    No server is asked through the user's proxy but by pip, which fetches what the quickstart needs.
    """
    spelled = {proxy: os.environ.get(proxy) or os.environ.get(proxy.upper()) for proxy in _PROXIES}
    proxy = spelled["https_proxy"] or spelled["all_proxy"]
    removed = {*_NAMES, *_PROXIES, *map(str.upper, _PROXIES)}
    for name in list(os.environ):
        if name in removed or name.startswith(_PREFIXES):
            del os.environ[name]
    os.environ.update(_FIXED)
    os.environ["HF_HOME"] = _hub.name
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if proxy is not None:
        os.environ.setdefault("PIP_PROXY", proxy)
    sys.modules.update(dict.fromkeys(_ABSENT))


_isolate()
