"""An image that goes while its training runs: one line, which names record and file."""

from __future__ import annotations

import pytest

from prism_tune.cli.options import end_with_errors
from prism_tune.training.train import train


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_vanished_image_is_named(make_run, monkeypatch, capsys, num_workers):
    config, run = make_run(hf={"max_steps": 3, "dataloader_num_workers": num_workers})
    monkeypatch.setattr("prism_tune.data.dataset.open_image", vanish)
    with pytest.raises(SystemExit) as ended:
        end_with_errors(lambda: train(config, run))
    assert ended.value.code == 1
    said = capsys.readouterr().err.partition("error: ")[2].strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert "record" in said
    assert said.endswith("no such image file")


def vanish(path):
    from prism_tune.data.images import open_image

    return open_image(path.with_name("gone.png"))
