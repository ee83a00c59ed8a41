from __future__ import annotations

import pytest

from prism_tune.data.policy import apply_policy, check_policy
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
