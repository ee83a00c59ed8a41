"""`torchrun --nnodes=2` over a network: two namespaces of this machine joined by one cable."""

from __future__ import annotations

import subprocess

from support.tiny import draw_pool
from support.two_nodes import SCRIPT, run_on_two_nodes

from prism_tune.run.timings import read_timings


def test_two_nodes_of_two_processes_select_what_one_process_selects(workplace):
    """1,100 images are three shards, so that three of the four processes have work."""
    workplace.use_pool(draw_pool(workplace.root / "large", num_images=1100))
    alone = workplace.select()
    run_on_two_nodes(
        "select", str(workplace.config_file), f"output_dir={workplace.root}/two", num_processes=2
    )
    together = workplace.read(workplace.run_dir(output_dir=workplace.root / "two"))
    assert together.manifest["subset_sha256"] == alone.manifest["subset_sha256"]
    assert together.manifest["timings"]["num_images"] == 1100
    assert [e["num_devices"] for e in read_timings(together.run)] == [4, 4]
    log = together.run.log.read_text()
    assert all(f"[rank {rank}]" in log for rank in range(4))


def test_without_a_config_it_explains_itself():
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bash scripts/two_nodes.sh VERB CONFIG [key=value ...]" in done.stdout
