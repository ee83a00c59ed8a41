from __future__ import annotations

import pytest

from prism_tune.data.policy import apply_policy, check_policy, decide
from prism_tune.errors import ConfigError, UserError
from prism_tune.schema import Skipped

BAD = [
    Skipped("u1", "a", "over_long", "record 3: 9 tokens"),
    Skipped("u2", "b", "no_label", "record 5: none"),
]


def test_everything_fails_by_default():
    with pytest.raises(UserError) as error:
        apply_policy("pool.json", BAD, {})
    assert str(error.value).splitlines() == [
        "pool.json: 2 bad records",
        "  over_long: record 3: 9 tokens",
        "  no_label: record 5: none",
        "Mend them in the file, or leave them out with data.policy.no_label=skip "
        "data.policy.over_long=skip",
    ]


def test_only_what_is_to_be_skipped_passes():
    with pytest.raises(UserError, match="1 bad record\n  no_label"):
        apply_policy("pool.json", BAD, {"over_long": "skip"})
    apply_policy("pool.json", BAD, {"over_long": "skip", "no_label": "skip"})


def test_unknown_reasons():
    check_policy({"over_long": "skip"})
    with pytest.raises(ConfigError, match="did you mean `over_long`"):
        check_policy({"overlong": "skip"})
    with pytest.raises(ConfigError, match="known: not_an_object"):
        check_policy({"zzz": "skip"})


def test_what_is_only_suspicious_is_kept_unless_the_policy_says_otherwise():
    twice = [Skipped("u3", "c", "duplicate", "record 7: an earlier record")]
    apply_policy("pool.json", twice, {})
    apply_policy("pool.json", twice, {"duplicate": "keep"})
    with pytest.raises(UserError, match="duplicate"):
        apply_policy("pool.json", twice, {"duplicate": "fail"})
    assert [decide(reason, {}) for reason in ("duplicate", "over_long")] == ["keep", "fail"]
    assert decide("duplicate", {"duplicate": "skip"}) == "skip"


def test_what_cannot_be_used_cannot_be_kept():
    with pytest.raises(ConfigError, match=r"data\.policy\.image_missing: .* cannot be used"):
        check_policy({"image_missing": "keep"})
