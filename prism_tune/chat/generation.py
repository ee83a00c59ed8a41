"""A model's generation config, such that it can be saved again once something in it was changed."""

from __future__ import annotations

import logging
import re
from typing import Any

from prism_tune.errors import UserError, first_line

logger = logging.getLogger(__name__)

_REFUSED = re.compile(r"^- `(\w+)`: ", re.MULTILINE)


def leave_out_ineffective(generation: Any) -> None:
    """Remove settings that have no effect, as a temperature where nothing is sampled.

    transformers only warns of them in a file as it was published (Vicuna's), and refuses to save
    them beside an end or pad token that was changed: at the first checkpoint.

    Args:
        generation: of a model; it is changed.

    Raises:
        UserError: it contradicts itself otherwise.
    """
    try:
        generation.validate(strict=True)
    except ValueError as error:
        names = _REFUSED.findall(str(error))
        if not names:
            raise UserError(
                f"generation_config.json of the model cannot be saved again: {first_line(error)}; "
                "mend it"
            ) from error
        for name in names:
            setattr(generation, name, None)
        logger.info("generation_config: left out, as without effect: %s", ", ".join(names))
