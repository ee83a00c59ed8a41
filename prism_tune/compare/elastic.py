"""torchrun, without its own account of what a process has said already.

`python -m prism_tune.compare.elastic` takes torchrun's arguments, and ends with the exit code of
the process that failed first, or as the signal that ended it does.
"""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from prism_tune.interrupts import follow_parent


def main() -> None:
    """Run torchrun's own function; nothing else is caught."""
    follow_parent()
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = failure.exitcode
        sys.exit(code if code >= 0 else 128 - code)
    except SignalException as interrupt:
        sys.exit(128 + interrupt.sigval)


if __name__ == "__main__":
    main()
