"""What is read as system line, question and answer, and what is refused, with its reason."""

from __future__ import annotations

import json
import math

import pytest

from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import adapt_record, build_reading
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import open_pool
from prism_tune.schema import Turn


def read(record, **config):
    return adapt_record(record, build_reading(DataConfig(records="pool.json", **config)))


def turns_of(record, **config):
    return [turn.text for turn in read(record, **config).turns]


def say(*pairs):
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


ASKED = [("user", "q"), ("assistant", "a")]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    "record",
    [
        say(("system", "Be brief."), *ASKED),
        say(("developer", [{"type": "text", "text": "Be brief."}]), *ASKED),
        say(("system", "Be"), ("system", "brief."), *ASKED),
        {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT]},
        {"conversations": SHAREGPT, "system": "Be brief."},
        {"question": "q", "response": "a", "system_prompt": "Be brief."},
        {**say(("system", "Be brief."), *ASKED), "system": "Be brief."},
        {"instruction": "q", "output": "a", "system": "Be brief."},
    ],
)
def test_a_system_line(record):
    adapted = read(record)
    assert adapted.system.split() == ["Be", "brief."]
    assert adapted.turns == (Turn("human", "q"), Turn("gpt", "a"))
    assert read(record, system="drop").system == ""
    assert read(record, system="drop").turns == adapted.turns


@pytest.mark.parametrize("system", ["", " \n", None, math.nan])
def test_no_system_line(system):
    assert read({**say(*ASKED), "system": system}).system == ""


def test_system_turns_between_questions_can_be_dropped():
    record = say(*ASKED, ("system", "Be brief."), *ASKED)
    assert turns_of(record, system="drop") == ["q", "a", "q", "a"]


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"question": "q", "answer": "a"}, ["q", "a"]),
        ({"query": "q", "response": 3}, ["q", "3"]),
        ({"question": "q", "answer": ["a"]}, ["q", "a"]),
        ({"instruction": "q", "input": "x", "output": "a"}, ["q\nx", "a"]),
        ({"instruction": "q", "input": "", "output": "a"}, ["q", "a"]),
        ({"question": "q", "input": "x", "answer": "a"}, ["q", "a"]),
        ({"query": "q", "response": "a", "history": [["q0", "a0"]]}, ["q0", "a0", "q", "a"]),
        ({"question": "q", "answer": "B", "choices": ["x", "y"]}, ["q\nA. x\nB. y", "B"]),
        ({"question": "q", "answer": 1, "choices": ["x", "y"]}, ["q\nA. x\nB. y", "B"]),
        ({"question": "q", "answer": "1", "choices": ["1", "2"]}, ["q\nA. 1\nB. 2", "1"]),
        ({"question": "q", "answer": "01", "choices": ["x", "y"]}, ["q\nA. x\nB. y", "B"]),
        ({"question": "q", "answer": "②", "choices": ["x", "y"]}, ["q\nA. x\nB. y", "②"]),
        ({"question": "q", "answer": "²", "choices": ["x", "y"]}, ["q\nA. x\nB. y", "²"]),
        ({"question": "q", "answer": "x", "options": {"A": "x", "B": "y"}}, ["q\nA. x\nB. y", "x"]),
        ({"question": "q", "answer": "a", "choices": []}, ["q", "a"]),
        ({"prompt": "q", "completion": "a"}, ["q", "a"]),
        (
            {"prompt": say(ASKED[0])["messages"], "completion": say(ASKED[1])["messages"]},
            ["q", "a"],
        ),
        ({"texts": [{"user": "q", "assistant": "a", "source": "x"}]}, ["q", "a"]),
        ({"conversations": json.dumps(SHAREGPT)}, ["q", "a"]),
        ({"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}, ["q", "a"]),
        ({"conversations": SHAREGPT, "question": "other", "answer": "other"}, ["q", "a"]),
        ({"conversations": math.nan, "messages": say(*ASKED)["messages"]}, ["q", "a"]),
        (say(("user", [{"type": "input_text", "text": "q"}]), ASKED[1]), ["q", "a"]),
        (say(("user", ["q", {"text": "!"}]), ASKED[1]), ["q!", "a"]),
        (say(("User", "q"), ("ASSISTANT", 3)), ["q", "3"]),
        (say(ASKED[0], ("model", "a"), ("user", 2.5), ("bing", "b")), ["q", "a", "2.5", "b"]),
        ({"question": "q", "answer": 0, "choices": [3, 4]}, ["q\nA. 3\nB. 4", "A"]),
    ],
)
def test_layouts_of_turns(record, texts):
    assert turns_of(record) == texts


def test_configured_columns_count_before_the_usual_ones():
    record = {"conversations": SHAREGPT, "asked": "q2", "said": "a2", "how": "Be brief."}
    columns = {"question": "asked", "answer": "said", "system": "how"}
    assert turns_of(record, columns=columns) == ["q2", "a2"]
    assert read(record, columns=columns).system == "Be brief."


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"query": "q", "response": "a", "history": [["q0", "a0"]]}, ["q0", "a0", "q", "a"]),
        ({"texts": [{"user": "q", "assistant": "a"}] * 2}, ["q", "a", "q", "a"]),
        ({"messages": [{"who": "user", "said": "q"}, {"who": "bot", "said": "a"}]}, ["q", "a"]),
    ],
)
def test_configured_keys_of_turns_serve_records_of_every_layout(record, texts):
    assert turns_of(record, columns={"role": "who", "text": "said"}) == texts


def test_a_pair_says_more_than_question_and_answer():
    """As Idefics' recipes have it: a picture, the loss, and what nothing reads."""
    pairs = [
        {"user": "q", "assistant": "a", "image": "a.png", "loss": True, "source": "x"},
        {"user": "q", "assistant": "a", "loss": False, "system": "Be brief."},
    ]
    adapted = read({"texts": pairs})
    assert [image.name for image in adapted.images] == ["a.png"]
    assert [turn.text for turn in adapted.turns] == ["<image>\nq", "a", "q", "a"]
    assert [turn.has_loss for turn in adapted.turns] == [True, True, True, False]
    assert adapted.unread == ("source", "system")


@pytest.mark.parametrize("key", ["loss", "weight", "train", "training"])
def test_an_answer_without_loss(key):
    record = say(*ASKED, *ASKED)
    record["messages"][1][key] = False
    record["messages"][3][key] = True
    assert [turn.has_loss for turn in read(record).turns] == [True, False, True, True]


def test_keys_of_turns_and_answers_that_nothing_reads_are_said_once(tmp_path, caplog):
    record = say(*ASKED)
    record["messages"][1] |= {"reasoning_content": "hm", "refusal": None, "name": ""}
    preferred = [
        {**say(*ASKED), "rejected_response": "no", "label": True},
        {"question": "q", "chosen": "a", "rejected": "b", "rejected_answer": "", "label": 0},
    ]
    (tmp_path / "pool.json").write_text(json.dumps([record, say(*ASKED), *preferred]))
    with caplog.at_level("WARNING", logger="prism_tune"):
        for _ in range(2):
            config = DataConfig(records=str(tmp_path / "pool.json"), columns={"answer": "chosen"})
            open_pool(config)
    (line,) = caplog.messages
    assert line.endswith(
        "keys of turns and answers that nothing reads, with the number of records: "
        "`reasoning_content` (1), `rejected_response` (1), `rejected` (1)"
    )


def test_a_label_that_is_read_is_no_mark():
    record = {"question": "is it?", "label": False, "said": "no"}
    columns = {"source": "label", "answer": "said"}
    assert turns_of(record, columns=columns) == ["is it?", "no"]


def test_what_is_not_learnt_is_another_record(tmp_path):
    """Its uid, and so what is computed of it; without any of this, uids stay what they were."""
    records = [say(*ASKED, *ASKED) for _ in range(3)]
    records[1]["messages"][1]["loss"] = False
    records[2]["system"] = "Be brief."
    (tmp_path / "pool.json").write_text(json.dumps(records))
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.json")))
    assert len(set(pool.uids)) == 3
    assert pool.duplicates == []
    assert pool.uids[0] == "bfe0d8d4454f9df7d802dac1dc8c9e72"


@pytest.mark.parametrize(
    ("record", "reason", "part"),
    [
        (say(*ASKED, ("system", "x"), *ASKED), "system_turn", "turn 2: a system turn behind"),
        (
            {**say(("system", "x"), *ASKED), "system": "y"},
            "bad_field",
            "`system_prompt`: another text",
        ),
        (say(("system", "<image>"), *ASKED), "image_count", "1 <image> in the system line"),
        (say(ASKED[0], ("tool", "x"), ASKED[1]), "tool_turn", "turn 1: the role is 'tool'"),
        (say(ASKED[0], ("function", "x")), "tool_turn", "turn 1: the role is 'function'"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "tool_turn", "turn 0"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            "tool_turn",
            "turn 0: it calls tools (`tool_calls`)",
        ),
        (say(("user", [{"type": "tool_result"}])), "tool_turn", "a part `tool_result`"),
        (say(("user", [{"type": "video", "video": "x"}])), "unsupported_medium", "part `video`"),
        (say(("user", [{"video": "x.mp4"}])), "unsupported_medium", "a part `video`"),
        (say(("user", [{"type": "input_audio"}])), "unsupported_medium", "part `input_audio`"),
        (say(("user", [{"type": ["text"]}])), "bad_field", "expected parts of text and images"),
        (
            say(("user", [{"type": "text", "text": "q", "video": "x"}])),
            "unsupported_medium",
            "`video`",
        ),
        (
            {"texts": [{"user": "q", "assistant": "a", "video": "x"}]},
            "unsupported_medium",
            "turn 0",
        ),
        (say(("user", [{"type": "chart"}])), "bad_field", "expected parts of text and images"),
        (say(("me", "x")), "unknown_role", "got 'me'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "unknown_role", "got ['user']"),
        (say(("system", "x")), "not_alternating", "without an answer"),
        ({"question": "q", "answer": ["a", "b"]}, "bad_field", "expected one answer, got 2"),
        ({"question": "q", "answer": 2, "choices": ["x"]}, "bad_field", "number 2 of 1 choices"),
        (
            {"question": "q", "answer": "9" * 5000, "choices": ["x"]},
            "bad_field",
            "number 99999999999999999999 of 1 choices",
        ),
        (
            {"conversations": {"from": ["human", "gpt", "human"], "value": ["q", "a"]}},
            "bad_field",
            "in each of its lists, got 3 of 'from', 2 of 'value'",
        ),
        (
            {"messages": {"role": ["user", "assistant"] * 2, "content": list("qaqa"), "loss": [1]}},
            "bad_field",
            "got 4 of 'role', 4 of 'content', 1 of 'loss'",
        ),
        ({"question": "q", "answer": "a", "choices": "x"}, "bad_field", "a list of up to 26 texts"),
        ({"question": "q", "answer": "a", "history": ["q"]}, "bad_field", "[question, answer]"),
        ({"question": "q"}, "no_conversations", "found 'question'; data.columns names other keys"),
        (
            {"messages": [{**m, "loss": 0} for m in say(*ASKED)["messages"]]},
            "no_label",
            "no answer carries loss",
        ),
        ({**say(*ASKED), "label": False}, "no_label", "`label` is false: an answer that is not"),
        ({"prompt": "q", "completion": "a", "kto_tag": False}, "no_label", "`kto_tag` is false"),
        (
            {"messages": [{**m, "weight": 0.5} for m in say(*ASKED)["messages"]]},
            "bad_field",
            "turn 1: `weight`: expected true or false, got 0.5",
        ),
    ],
)
def test_what_is_refused(record, reason, part):
    with pytest.raises(BadRecordError) as error:
        read(record)
    assert (error.value.reason, part in error.value.detail) == (reason, True), error.value.detail
