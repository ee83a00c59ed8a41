"""What the doctor says of libraries: their versions, and whether they do what prism_tune asks.

A version says little: a torchvision of another build than torch's keeps transformers from being
imported, whatever both are called. So the things that every run does are tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Literal

from packaging.requirements import Requirement

from prism_tune.errors import first_line

State = Literal["ok", "optional", "missing"]

_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
"""How a library fails whose parts do not fit together: a shared library that is missing (OSError),
operators that another build has (RuntimeError), arrays of another layout (ValueError)."""
_USED = ("AutoConfig", "AutoProcessor", "AutoModelForImageTextToText")
_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Check:
    """One line of the table.

    `state` is "missing" where prism_tune cannot work without it, "optional" where only some of it
    cannot; `mend` says what to do about either.
    """

    name: str
    found: str
    state: State = "ok"
    mend: str = ""


def check_packages() -> Iterator[Check]:
    """Every requirement of setup.py against what is installed."""
    try:
        lines = requires("prism_tune") or []
    except PackageNotFoundError:
        mend = "pip install it, or bash scripts/setup.sh in a checkout"
        yield Check("prism_tune", "not installed", "missing", mend)
        return
    for line in lines:
        requirement = Requirement(line)
        extra = _extra_of(requirement)
        if extra in ("dev", "docs"):  # of no use to a user
            continue
        yield _check_package(requirement, extra)


def check_uses() -> Iterator[Check]:
    """What every run does with these libraries, done once."""
    torchvision = list(check_torchvision())
    yield from torchvision
    transformers = check_transformers()
    if transformers.state != "ok" and any(check.state != "ok" for check in torchvision):
        transformers = Check(transformers.name, transformers.found, "missing", "as torchvision")
    yield transformers
    yield check_template()
    yield check_tokenizers()
    if transformers.state == "ok":
        yield from check_processors()


def check_torchvision() -> Iterator[Check]:
    """Where it is installed, it has to be of torch's own build; nothing where it is not."""
    if find_spec("torchvision") is None:
        return
    try:
        found = str(import_module("torchvision").__version__)
    except _BROKEN as error:
        mend = (
            "it is of another build than torch: install both from one place, "
            "or pip uninstall torchvision"
        )
        yield Check("torchvision", f"cannot be imported: {_innermost_line(error)}", "missing", mend)
        return
    yield Check("torchvision", found)


def check_transformers() -> Check:
    """The classes that read models and processors."""
    name = "transformers' Auto classes"
    try:
        transformers = import_module("transformers")
        for used in _USED:
            getattr(transformers, used)
    except _BROKEN as error:
        mend = "pip install --force-reinstall transformers; the message names what is in its way"
        return Check(name, f"cannot be imported: {_innermost_line(error)}", "missing", mend)
    return Check(name, "can be imported")


def check_template() -> Check:
    """A chat template, rendered as a processor does."""
    name, message = "chat templates", {"role": "user", "content": "?"}
    try:
        templates = import_module("transformers.utils.chat_template_utils")
        templates.render_jinja_template(conversations=[[message]], chat_template=_TEMPLATE)
    except _BROKEN as error:
        mend = f"pip install '{_requirement_on('jinja2')}'"
        return Check(name, f"cannot be rendered: {_innermost_line(error)}", "missing", mend)
    return Check(name, "can be rendered")


def check_tokenizers() -> Check:
    """Tokenizers that come as tokenizer.model alone, as Vicuna's."""
    from prism_tune.models.tokenizer import find_fault

    name, fault = "SentencePiece tokenizers", find_fault()
    if not fault:
        return Check(name, "can be read")
    mend = "pip install --upgrade sentencepiece protobuf; Vicuna's tokenizer is one"
    return Check(name, f"cannot be read: {fault}", "missing", mend)


def check_processors() -> Iterator[Check]:
    """Packages that the processors of some families need, with these families."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    from prism_tune.models.families import FAMILIES

    names = [*FAMILIES, "pixtral"]  # Pixtral's model is of the row `llava`
    needs = {
        "torchvision": [
            name
            for name in names
            if name in VIDEO_PROCESSOR_MAPPING_NAMES
            or PROCESSOR_MAPPING_NAMES.get(name) == "PixtralProcessor"
        ],
        "num2words": [name for name in FAMILIES if name == "smolvlm"],
    }
    remedies = {
        "torchvision": "pip install torchvision, from where torch came: they are of one build",
        "num2words": "pip install num2words",
    }
    for package, families in needs.items():
        if find_spec(package) is None:
            found = f"not installed: no processor for {', '.join(families)}"
            yield Check(package, found, "optional", remedies[package])


def _extra_of(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for one that everybody needs."""
    found = re.search(r'extra == "(.+?)"', str(requirement.marker or ""))
    return found[1] if found else ""


def _check_package(requirement: Requirement, extra: str) -> Check:
    state: State = "optional" if extra else "missing"
    needed = f"{requirement.name}{requirement.specifier}"
    mend = f"pip install '{needed}'"
    label = f"{requirement.name} [{extra}]" if extra else requirement.name
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Check(label, "not installed", state, mend)
    if requirement.specifier.contains(found, prereleases=True):
        return Check(label, found)
    return Check(label, f"{found}, needs {needed}", state, mend)


def _requirement_on(package: str) -> str:
    """How prism_tune asks for it; its name where that is not known."""
    try:
        lines = requires("prism_tune") or []
    except PackageNotFoundError:
        lines = []
    found = (Requirement(line) for line in lines)
    return next((f"{r.name}{r.specifier}" for r in found if r.name == package), package)


def _innermost_line(error: Exception) -> str:
    """The innermost reason: transformers puts its own words before it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error)
