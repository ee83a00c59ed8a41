"""Put the projector that a finished run has tuned into prism_tune, with its provenance.

python scripts/ship_projector.py runs/quickstart_projector
"""

from __future__ import annotations

import sys
from pathlib import Path

from prism_tune.quickstart.alignment import ship_projector
from prism_tune.quickstart.artifacts import ALIGNED
from prism_tune.run.folder import RunDir

if __name__ == "__main__":
    ship_projector(RunDir(Path(sys.argv[1])), ALIGNED)
