"""Shared fixtures: a tiny random LLaVA of the true architecture and a pool of drawn images."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import subprocess
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
import support.environment  # noqa: F401 - variables, before they are read
from hypothesis import settings
from support.slow import refuse_processes, starts_processes

from prism_tune.errors import UserError
from prism_tune.run.cache_home import cache_home

# No timed tests: an example may take its time on a busy machine.
settings.register_profile("prism_tune", deadline=None)
settings.load_profile("prism_tune")

# What a run under nohup ignores, the processes that tests start and ask to end would ignore too.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config, items):
    """Mark what starts processes as slow, and let files with such tests begin.

    The fast tests alone may start none.
    """
    for item in items:
        found = [used.func for uses in item._fixtureinfo.name2fixturedefs.values() for used in uses]
        if any(starts_processes(function) for function in (item.function, *found)):
            item.add_marker(pytest.mark.slow)
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)  # stable: the order in a file stays
    if config.option.markexpr == "not slow":
        subprocess.Popen.__init__ = refuse_processes


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Converted pools of test runs stay out of the user's cache; downloaded wheels are shared."""
    own = tmp_path_factory.mktemp("cache")
    with suppress(UserError, OSError):  # a user without a home, or whose home is not his own
        wheels = cache_home() / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        (own / "wheels").symlink_to(wheels.absolute(), target_is_directory=True)
    os.environ["PRISM_TUNE_CACHE"] = str(own)


@pytest.fixture
def without_home(monkeypatch):
    """As a container's user that no file knows (`docker run --user 12345`), without any cache."""

    def find(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", find)
    for name in ("HOME", "PRISM_TUNE_CACHE", "PRISM_TUNE_POOL_CACHE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def long_tmpdir(tmp_path) -> dict[str, str]:
    """The environment with a TMPDIR too long for sockets: the kernel takes short paths only."""
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    return {**os.environ, "TMPDIR": str(folder)}


@pytest.fixture(autouse=True)
def _own_log():
    """A verb called within a test leaves no handler behind: the next test is another process."""
    yield
    logger = logging.getLogger("prism_tune")
    for handler in logger.handlers[:]:
        if isinstance(handler, MemoryHandler):
            logger.removeHandler(handler)
            if handler.target is not None:
                handler.target.close()
    logger.propagate = True


@pytest.fixture(scope="session")
def tiny_llava_dir(tmp_path_factory) -> Path:
    """A directory with a tiny random LLaVA checkpoint, its tokenizer and its processor."""
    from support.tiny import save_tiny_llava

    return save_tiny_llava(tmp_path_factory.mktemp("tiny_llava"))


@pytest.fixture(scope="session")
def drawn_pool(tmp_path_factory) -> Path:
    """`pool.json` over 16 drawn images in `images/` beside it."""
    from support.tiny import draw_pool

    return draw_pool(tmp_path_factory.mktemp("drawn_pool"))
