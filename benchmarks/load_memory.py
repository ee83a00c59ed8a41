"""Host memory that each process takes to load a checkpoint of another type than it computes in.

    torchrun --standalone --nproc_per_node=2 benchmarks/load_memory.py --dtype float16 --device meta
    torchrun --standalone --nproc_per_node=2 benchmarks/load_memory.py --dtype bfloat16 --zero3

Draws a random LLaVA in bfloat16 (unless `--folder` has one), then every process reads it with
`models.load.load_model` and prints the highest anonymous memory over what it had before, and that
afterwards: its own; a file that is mapped is shared, and is not counted. `--dtype` is what it
computes in. `--device meta` stands for a device with a memory of its own where there is none.
`--zero3` reads it as training under ZeRO-3 does; on a CPU a rank's own part of the weights, which
a GPU would hold, stays in host memory and is counted.
"""

from __future__ import annotations

import argparse
import os
import re
import threading
import time
from pathlib import Path

import torch
from drawn_models import save_llava
from transformers.integrations import HfDeepSpeedConfig

from prism_tune.config.sections import ModelConfig
from prism_tune.models.load import load_model


def anonymous_mb() -> float:
    """Of this process, now."""
    found = re.search(r"Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


class Peak:
    """The highest anonymous memory while it is open, looked at every 5 ms."""

    def __enter__(self) -> Peak:
        self.highest = self.before = anonymous_mb()
        self._open = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._open:
            self.highest = max(self.highest, anonymous_mb())
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()


def open_zero3(dtype: torch.dtype) -> HfDeepSpeedConfig:
    """The group, and the config that transformers looks for while it loads; it must be kept."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo")
    return HfDeepSpeedConfig(
        {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": dtype is torch.bfloat16},
            "zero_optimization": {"stage": 3},
        }
    )


def main() -> None:
    """Draw, load, print."""
    parser = argparse.ArgumentParser(description="Memory of loading.")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/prism_tune-load-memory"))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--zero3", action="store_true")
    options = parser.parse_args()
    rank = int(os.environ.get("LOCAL_RANK", 0))
    dtype = getattr(torch, options.dtype)
    zero3 = open_zero3(dtype) if options.zero3 else None
    if zero3 is None:
        torch.distributed.init_process_group("gloo")
    if rank == 0 and not options.folder.exists():
        save_llava(
            options.folder,
            num_layers=12,
            width=1024,
            vision_layers=12,
            image_pixels=224,
            dtype=torch.bfloat16,
        )
    torch.distributed.barrier()
    size = sum(f.stat().st_size for f in options.folder.glob("*.safetensors")) / 2**20
    with Peak() as peak:
        model = load_model(
            ModelConfig(path=str(options.folder)),
            dtype=dtype,
            device=torch.device(options.device),
        )
        torch.distributed.barrier()
    kept = anonymous_mb() - peak.before
    print(
        f"rank {rank}: checkpoint {size:.0f} MiB in bfloat16, loaded as {model.dtype}: at most "
        f"{peak.highest - peak.before:.0f} MiB more, {kept:.0f} MiB at the end",
        flush=True,
    )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
