"""What peft trains in full beside LoRA: a copy of each module, which runs in its place.

Of a module in another that is copied peft would make a second copy, which nothing calls.
"""

from __future__ import annotations

from collections.abc import Iterable

from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

from prism_tune.errors import ConfigError


def lies_in(path: str, others: Iterable[str]) -> bool:
    """Whether a module lies below one of the others."""
    return any(path.startswith(f"{other}.") for other in others)


def outermost(paths: Iterable[str]) -> list[str]:
    """The modules that hold all the others."""
    all_paths = list(paths)
    return [path for path in all_paths if not lies_in(path, all_paths)]


def name_in_model(name: str) -> str:
    """The name of a copy, or of a parameter in it, without what peft has put into it."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


def check_copies(tuned: PeftModel) -> None:
    """Check that no copied module lies in another.

    Raises:
        ConfigError: `training.lora.modules_to_save` names one that does.
    """
    copied = [
        name_in_model(name)
        for name, module in tuned.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]
    for path in copied:
        if lies_in(path, copied):
            raise ConfigError(
                f"training.lora.modules_to_save names {path}, which lies in another module that is "
                "trained in full already; leave it out"
            )
