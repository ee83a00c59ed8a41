from __future__ import annotations

import pytest
from support.evaluation_runs import Setting, draw_benchmarks

from prism_tune.evaluation.generate import Decoder


@pytest.fixture(scope="session")
def benchmark_dir(tmp_path_factory):
    return draw_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture
def setting(tiny_llava_dir, benchmark_dir, tmp_path):
    return Setting(tiny_llava_dir, benchmark_dir, tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """The requests that reach a model, in the order they are made."""
    seen = []
    answer = Decoder.answer

    def watch(self, requests, **options):
        seen.extend(requests)
        return answer(self, requests, **options)

    monkeypatch.setattr(Decoder, "answer", watch)
    return seen
