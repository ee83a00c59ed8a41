"""Two processes select what one does, for every method that runs a model of its own.

One launch serves all methods: starting Python with torch takes longer than the tiny models do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from support.tiny_encoders import save_encoder

SELECT_ALL = """
import os
import sys
import time
from prism_tune.config.load import load_config
from prism_tune.features.shards import StoredRows
from prism_tune.run.ranks import process_group
from prism_tune.run.folder import RunDir
from prism_tune.selection.evidence import store as feature_store
from prism_tune.selection.select import select
from prism_tune.training.train import train
from pathlib import Path

feature_store.UNITS_PER_SHARD = 5  # several for every process
if os.environ["RANK"] == "1":  # which reads after the other could have put all in its place
    open_rows = StoredRows.__init__
    StoredRows.__init__ = lambda *given: (time.sleep(0.3), open_rows(*given))[1]
with process_group():
    for name, *overrides in (line.split("|") for line in sys.argv[2:]):
        config = load_config(sys.argv[1], overrides)
        select(config, RunDir(Path(config.output_dir) / config.name), tune=train)
"""


def test_two_processes_select_what_one_process_selects(workplace):
    """A warm-up leaves the group of the selection for one of its own, and all join again."""
    encoder = save_encoder("clip", workplace.root / "clip")
    warmup = "{share: 0.3, lora_rank: 4, max_steps: 2, learning_rate: 0.01, batch_size: 4}"
    reference = {"selection__reference": f"{{warmup: {warmup}}}"}
    methods = {
        "perplexity": {"selection__keep": "low"},
        "el2n": {},
        "warmed_up": {"selection__scorer": "el2n", **reference},
        "grand": {},
        "clip_score": {"selection__options": f"{{model: {encoder}}}"},
        "d2": {"selection__options": "{difficulty: el2n}"},
        "kernel_prism": {},
        "visual_gain": {},
        "coincide": {"selection__options": "{layers: [1], num_clusters: 4}"},
        "datatailor": {"selection__scope": "global"},
        "scalselect": {"selection__text_only": "drop"},
        "presel": {"selection__scope": "global", "selection__options": "{reference_share: 0.5}"},
    }
    methods = {name: {"selection__scorer": name, **more} for name, more in methods.items()}
    launch_two(workplace, methods)
    # What one process selects with the same warmed-up model.
    shutil.copytree(workplace.root / "together/references", workplace.root / "runs/references")
    for name, more in methods.items():
        alone = workplace.select(name=name, **more)
        together = workplace.read(
            workplace.run_dir(name=name, output_dir=workplace.root / "together")
        )
        assert together.manifest["subset_sha256"] == alone.manifest["subset_sha256"], name
        assert together.manifest["timings"]["num_images"] == alone.manifest["timings"]["num_images"]


def launch_two(workplace, methods):
    """Select with all of them, in the folder `together`."""
    lines = [
        "|".join(
            [
                name,
                f"name={name}",
                f"output_dir={workplace.root}/together",
                *(f"{key.replace('__', '.')}={value}" for key, value in more.items()),
            ]
        )
        for name, more in methods.items()
    ]
    script = workplace.root / "select_all.py"
    script.write_text(SELECT_ALL)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(workplace.config_file), *lines],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-9000:]
