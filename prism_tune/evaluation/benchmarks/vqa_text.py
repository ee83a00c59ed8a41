"""Short answers, normalised and compared: the M4C processor and the steps of the VizWiz (VQA) API.

An answer in, its normal form or its credit out. Quirks of the official code are kept, because
scores depend on them: a period goes unless a digit follows (the look-behind is mistyped there), and
only the first 32 do (a flag is passed as the count); ":", "$", "%" and "'" stay; "A" becomes
nothing.
Sources: facebookresearch/mmf `EvalAIAnswerProcessor` (as in LLaVA's `m4c_evaluator.py`) and the
VizWiz evaluation API. Contractions whose official key has a capital, or equals its value, can
never apply to a lower-case word and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from prism_tune.evaluation.metrics import mean

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32
_NUM_AGREEING = 3
"""So many others make an answer wholly right."""
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
_CONTRACTIONS_BY_FORM = """
ain't:aint aren't:arent can't:cant could've:couldve couldn't:couldnt didn't:didnt doesn't:doesnt
don't:dont hadn't:hadnt hasn't:hasnt haven't:havent he'd:hed he's:hes how'd:howd how'll:howll
how's:hows isn't:isnt it'd:itd it'll:itll ma'am:maam mightn't:mightnt might've:mightve
mustn't:mustnt must've:mustve needn't:neednt not've:notve o'clock:oclock oughtn't:oughtnt
shan't:shant should've:shouldve shouldn't:shouldnt somebody'll:somebodyll somebody's:somebodys
somebodyd:somebody'd someone'd:someoned someone'll:someonell someone's:someones
something'd:somethingd something'll:somethingll that's:thats there'd:thered there're:therere
there's:theres they'd:theyd they'll:theyll they're:theyre they've:theyve 'twas:twas wasn't:wasnt
we've:weve weren't:werent what'll:whatll what're:whatre what's:whats what've:whatve when's:whens
where'd:whered where's:wheres where've:whereve who'd:whod who'll:wholl who's:whos who've:whove
why'll:whyll why're:whyre why's:whys won't:wont would've:wouldve wouldn't:wouldnt y'all:yall
you'd:youd you'll:youll you're:youre you've:youve
couldn't've:couldn'tve,couldnt've hadn't've:hadn'tve,hadnt've he'd've:he'dve,hed've
it'd've:it'dve,itd've mightn't've:mightn'tve,mightnt've 'ow's'at:ow's'at,'ows'at,'ow'sat
she'd've:she'dve,shed've shouldn't've:shouldn'tve,shouldnt've
somebody'd've:somebody'dve,somebodyd've someone'd've:someone'dve,someoned've
something'd've:something'dve,somethingd've there'd've:there'dve,thered've
they'd've:they'dve,theyd've we'd've:we'dve,wed've who'd've:who'dve,whod've
wouldn't've:wouldn'tve,wouldnt've y'all'd've:yall'd've,y'alld've,y'all'dve
y'all'll:yall'll,y'allll you'd've:you'dve,youd've
"""
CONTRACTIONS = {
    spelling: form
    for form, spellings in (entry.split(":") for entry in _CONTRACTIONS_BY_FORM.split())
    for spelling in spellings.split(",")
}


@cache
def normalize_m4c(answer: str) -> str:
    """The M4C normal form: what LLaVA uploads to VizWiz, and lmms-eval applies to both sides."""
    tokenized = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalize_vizwiz(tokenized.strip())


@cache  # ten references a question, and half of them "yes"
def normalize_vizwiz(answer: str) -> str:
    """The VizWiz API's normal form of a prediction: the same without M4C's first step."""
    words = [_NUMBERS.get(w, w) for w in strip_punctuation(flatten(answer)).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@cache
def flatten(answer: str) -> str:
    """The VQA API's first step: line breaks and tabs as spaces, stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def match_answer(answer: str, references: Sequence[str]) -> float:
    """Mean over the references of min(1, matches among the others / 3)."""
    num_matches = references.count(answer)
    if not num_matches or num_matches > _NUM_AGREEING:
        return float(num_matches > 0)
    return mean(min(1.0, (num_matches - (reference == answer)) / 3) for reference in references)


def credit_m4c_both(answer: str, references: Sequence[str]) -> float:
    """TextVQA's evaluator, and lmms-eval's rule for VizWiz: M4C on both sides."""
    return match_answer(normalize_m4c(answer), [normalize_m4c(text) for text in references])


def strip_punctuation(text: str) -> str:
    """Each mark deleted if it touches a space anywhere in `text`, otherwise made a space."""
    has_number = _DIGIT_COMMA_DIGIT.search(text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if touches_space or has_number else " ")
    return _PERIOD.sub("", stripped, count=_MAX_PERIODS)
