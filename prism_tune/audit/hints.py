"""How to mend what an audit finds, by reason."""

from __future__ import annotations

from prism_tune.data.policy import Reason

HINTS: dict[Reason, str] = {
    "not_an_object": "every record has to be a JSON object; remove what is not",
    "bad_field": "a field has another type than expected; the detail names it",
    "no_conversations": "name the key of the turns with data.columns.conversations, or remove it",
    "unknown_role": "rename the roles to human and gpt (or user and assistant), and system",
    "system_turn": "move it to the beginning, or leave system turns out with data.system=drop",
    "tool_turn": "calls of tools and their results are not read: remove the record",
    "unsupported_medium": "video and sound are not read: remove the record",
    "not_alternating": "turns have to be question, answer, question, answer; merge or remove some",
    "empty_question": "remove the turn pair, or the record",
    "empty_answer": "remove the turn pair, or the record: there is nothing to learn from it",
    "image_count": "write one <image> into the turns for each image of the record",
    "image_unmarked": "put before the first question; write <image> where it belongs otherwise",
    "image_unread": "name its key with data.columns.image",
    "image_remote": "fetch the images, and write their paths into the records",
    "image_outside": "set data.image_dir to the folder that all paths are relative to; absolute "
    "paths may lead into data.image_roots, too",
    "image_missing": "check data.image_dir, and that every image archive was unpacked",
    "image_empty": "a broken download: fetch the file again",
    "image_unreadable": "not an image (an error page?): fetch the file again; or closed: see "
    "its permission, that of its folders, and where its links lead",
    "image_truncated": "a broken download: fetch the file again",
    "image_bomb": "scale the image down",
    "image_mode": "its values have no known range or colour: save it as 8- or 16-bit grey or RGB",
    "image_16bit": "scaled to 8 bits it is nearly of one grey: stretch its range and save it anew",
    "image_blank": "nothing is to be seen: a lost picture's placeholder, or drawn in transparency",
    "image_wrong_type": "harmless: the content counts; rename the file if other tools complain",
    "image_animated": "the first frame is used; extract another one if that is the wrong one",
    "image_aspect_ratio": "padded to a square, little of it is left, or it is too large: crop it",
    "image_refused": "the model's processor cannot take an image of this shape: crop it",
    "duplicate": "trained on as often as it stands there; data.policy.duplicate=skip keeps one",
    "special_token": "the name of a control token, for which the tokenizer has no text: rewrite it",
    "over_long": "its images alone do not fit; raise data.max_length or use fewer images",
    "no_label": "its answers are marked as not to be learnt, or begin beyond data.max_length",
}
