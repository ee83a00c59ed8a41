"""What an audit prints."""

from __future__ import annotations

from prism_tune.audit.console import print_audit

SOURCES = ("vqa[en]", "[/x]", ":cat:")


def summarise(sources, **extra):
    return {
        "reasons": {},
        "per_source": {name: {"records": 2, "fail": 0, "skip": 0, "keep": 1} for name in sources},
        "lengths": {
            "num_cut": 0,
            "max_length": 9,
            "histogram": [{"over": 0, "up_to": 8, "records": 6}],
        },
        "num_alone_in_source": 0,
        "num_image_records": 6,
        "num_usable": 6,
        "num_records": 6,
        "num_images": 6,
        "folder": "runs/[a]/audit",
        **extra,
    }


def test_names_of_sources_are_printed_as_they_are(capsys):
    """In brackets they would be styles, and a closing one an error behind all the work."""
    found = {"policy": "keep", "records": 3, "per_source": dict.fromkeys(SOURCES, 1), "hint": "[h]"}
    print_audit(summarise(SOURCES, reasons={"duplicate": found}))
    printed = capsys.readouterr().out
    for name in SOURCES:
        assert printed.count(name) == 2
    assert "duplicate: [h]" in printed
    assert "lists in runs/[a]/audit" in printed


def test_sources_that_are_shards_of_images_are_spoken_of(capsys):
    """LLaVA-Pretrain's: a cut inside each of 660 folders would be a cut inside nothing."""
    print_audit(summarise(["text", *(f"{number:05}" for number in range(12))]))
    assert "12 sources are numbers" in capsys.readouterr().out
    print_audit(summarise(["text", "2017", "2014"]))
    assert "are numbers" not in capsys.readouterr().out
