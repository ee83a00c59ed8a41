"""Why a record can be left out, and what the config says to do about it.

In: the config's `data.policy` (reason -> fail | skip | keep). Out: the verdict for bad records.

Most reasons make a record unusable: it fails (the default) or is skipped. The reasons of
`USABLE` only make it suspicious: it is kept unless the config says otherwise, because LLaVA-665K
itself has duplicates and GIF files called .jpg.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from prism_tune.errors import ConfigError, UserError
from prism_tune.schema import Skipped

Reason = Literal[
    "not_an_object",
    "bad_field",
    "no_conversations",
    "unknown_role",
    "system_turn",
    "tool_turn",
    "unsupported_medium",
    "not_alternating",
    "empty_question",
    "empty_answer",
    "image_count",
    "image_unmarked",
    "image_unread",
    "image_remote",
    "image_outside",
    "image_missing",
    "image_empty",
    "image_unreadable",
    "image_truncated",
    "image_bomb",
    "image_mode",
    "image_16bit",
    "image_blank",
    "image_wrong_type",
    "image_animated",
    "image_aspect_ratio",
    "image_refused",
    "duplicate",
    "special_token",
    "over_long",
    "no_label",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
USABLE: tuple[Reason, ...] = (
    "image_unmarked",
    "image_16bit",
    "image_blank",
    "image_wrong_type",
    "image_animated",
    "image_aspect_ratio",
    "duplicate",
)
"""Kept by default."""

_NUM_LISTED = 5


class BadRecordError(ValueError):
    """One record that cannot be used, with the reason its policy is looked up by."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def check_policy(policy: Mapping[str, str]) -> None:
    """Refuse a policy for a reason that does not exist, and keeping what cannot be used.

    Raises:
        ConfigError: naming the nearest reason, or what is possible.
    """
    for key, verdict in policy.items():
        if key not in REASONS:
            close = difflib.get_close_matches(key, REASONS, n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(REASONS)}"
            raise ConfigError(f"data.policy: unknown reason `{key}`; {hint}")
        if verdict == "keep" and key not in USABLE:
            raise ConfigError(
                f"data.policy.{key}: such records cannot be used; expected fail or skip (keep is "
                f"possible for {', '.join(USABLE)})"
            )


def decide(reason: str, policy: Mapping[str, str]) -> str:
    """What happens to a record with this reason: "fail", "skip" or "keep"."""
    return policy.get(reason, "keep" if reason in USABLE else "fail")


def apply_policy(
    where: str, bad: Sequence[Skipped], policy: Mapping[str, str], noun: str = "record"
) -> None:
    """Refuse, together, the bad records whose policy is "fail"; let the others pass.

    Args:
        where: the file, for the message.
        bad: every record left out, with its reason.
        policy: reason -> "fail", "skip" or "keep".
        noun: what is bad, for the message.

    Raises:
        UserError: listing the number and the first of the records whose policy is "fail".
    """
    refuse_records(where, [(item,) for item in bad], policy, noun)


def refuse_records(
    where: str,
    found: Iterable[Sequence[Skipped]],
    policy: Mapping[str, str],
    noun: str = "record",
) -> None:
    """The same of records in which several things were found; each is listed by the first.

    Args:
        where: the file, for the message.
        found: everything found in one record, then in the next.
        policy: as in `apply_policy`.
        noun: as there.

    Raises:
        UserError: as there.
    """
    failing = [[item for item in items if decide(item.reason, policy) == "fail"] for items in found]
    failing = [items for items in failing if items]
    if not failing:
        return
    lines = [f"{where}: {len(failing)} bad {noun if len(failing) == 1 else noun + 's'}"]
    lines += [f"  {item.reason}: {item.detail}" for item, *_ in failing[:_NUM_LISTED]]
    if len(failing) > _NUM_LISTED:
        full = "; `prism-tune audit` lists all" if noun == "record" else ""
        lines.append(f"  ... and {len(failing) - _NUM_LISTED} more{full}")
    reasons = sorted({item.reason for items in failing for item in items})
    keys = " ".join(f"data.policy.{reason}=skip" for reason in reasons)
    lines.append(f"Mend them in the file, or leave them out with {keys}")
    raise UserError("\n".join(lines))
