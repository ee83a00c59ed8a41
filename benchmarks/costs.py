"""What each selector takes at a size nobody has run here, by the formulas of `prism-tune plan`.

    python benchmarks/costs.py                                  # 100 million records
    python benchmarks/costs.py --records 665298 --dollars 2

Prints, for each scorer: the FLOPs of its evidence (`select_flops`), device hours at the rates that
were measured on one H100 (RESULTS.md: the shallow pass waits for its images, the whole model does
not), dollars, and the evidence's bytes on disk (`evidence_bytes`). Assumptions: LLaVA-1.5-7B; each
record with an image of its own; the text and the price that the options name.
"""

from __future__ import annotations

import argparse

from prism_tune.compare.selection_estimates import evidence_bytes, reads_features, select_flops
from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.sections import Config
from prism_tune.selection.scorers import SCORERS

LLAVA_7B = Shape(
    num_layers=32,
    layers=32 * 202_383_360,
    embeddings=2 * 32_064 * 4096,
    vision=303_507_456,
    projector=20_979_712,
    width=4096,
    num_image_tokens=576,
    vocabulary=32_064,
)
SHALLOW_RATE, WHOLE_RATE = 102e12, 407e12
"""FLOP/s of `prism-tune select` on one H100, torchvision and 14 workers; pillow makes 75e12."""

_OPTIONS = {"clip_score": {"model": "clip"}, "self_filter_static": {"model": "clip"}}


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000_000)
    parser.add_argument("--text-bytes", type=int, default=1000, help="JSON of a record")
    parser.add_argument("--dollars", type=float, default=3.0, help="of a device hour")
    arguments = parser.parse_args()
    num = arguments.records
    pool = PoolSize(num, num, num, num * arguments.text_bytes)
    print(f"\n{num:,} records, {pool.text_tokens:.0f} tokens of text each, ", end="")
    print(f"{LLAVA_7B.num_image_tokens} of the image; ${arguments.dollars:g} an hour\n")
    print("| scorer | FLOPs | H100 hours | dollars | evidence |")
    print("|---|---:|---:|---:|---:|")
    for scorer in SCORERS:
        selection = {"scorer": scorer, "options": _OPTIONS.get(scorer, {})}
        tree = {"name": "costs", "model": {"path": "none"}, "data": {"records": "none.json"}}
        config = Config.model_validate({**tree, "selection": selection})
        flops = select_flops(config.selection, LLAVA_7B, pool)
        shallow = reads_features(config.selection) or scorer == "clip_score"
        hours = flops / (SHALLOW_RATE if shallow else WHOLE_RATE) / 3600
        size = evidence_bytes(config.selection, LLAVA_7B, pool) / 1e12
        print(
            f"| {scorer} | {flops:.1e} | {hours:,.0f} | {hours * arguments.dollars:,.0f} | "
            f"{size:.2f} TB |"
        )


if __name__ == "__main__":
    main()
