"""Going on from somebody else's checkpoint: states are read, code in them never runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from prism_tune.errors import UserError
from prism_tune.training.states import read_safely
from prism_tune.training.train import train


class Code:
    """Runs when it is unpickled, as everybody's objects may."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (os.mkdir, (str(self._path),))


def test_states_are_read_where_the_user_has_asked_torch_for_everything(tmp_path, monkeypatch):
    """As old versions of other programs need; the two variables together make torch refuse all."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"step": torch.ones(1)}, tmp_path / "plain.pt")
    torch.save(Code(tmp_path / "code-ran"), tmp_path / "code.pt")
    with read_safely(tmp_path, deepspeed=False):
        assert torch.load(tmp_path / "plain.pt")["step"] == 1
    with (
        pytest.raises(UserError, match="holds more than tensors"),
        read_safely(tmp_path, deepspeed=False),
    ):
        torch.load(tmp_path / "code.pt")
    assert not (tmp_path / "code-ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", [None, "configs/deepspeed/zero3.json"])
def test_code_in_a_state_is_not_run(make_run, tmp_path, deepspeed):
    hf = {"max_steps": 4, "save_steps": 2, "use_cpu": True}
    config, run = make_run(hf=hf, deepspeed=deepspeed, tuning="lora")
    train(config, run)
    for name in ("stage.json", "config.yaml"):  # as if killed behind its last step
        (run.training / name).unlink()
    train(config, run)  # what ZeRO keeps is read
    (run.training / "stage.json").unlink()

    checkpoint = run.training / "checkpoint-4"
    pattern = "optimizer.pt" if deepspeed is None else "global_step4/*optim_states.pt"
    (state,) = checkpoint.glob(pattern)
    content = torch.load(state, weights_only=False)
    torch.save({**content, "extra": Code(tmp_path / "code-ran")}, state)
    marker = checkpoint / "complete.json"
    record = json.loads(marker.read_text())
    record["bytes"][str(state.relative_to(checkpoint))] = state.stat().st_size
    marker.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"checkpoint-4: the state .* --force trains anew"):
        train(config, run)
    assert not (tmp_path / "code-ran").exists()
