"""Work that is shared out to processes: from any program, and what becomes of it if one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from PIL import Image

from prism_tune.data.spawned import map_spawned
from prism_tune.errors import UserError

pytestmark = pytest.mark.slow

SCRIPT = """\
import prism_tune as pt

pool = pt.open_pool("pool.json", image_dir="images")
print(len(pool), len(pool.image_index.hashes))
"""


def run_script(folder, *arguments, **given):
    environment = {**os.environ, "PRISM_TUNE_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **given,
    )


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_the_first_example_is_a_script_as_it_stands(tmp_path, way):
    """Without `if __name__ == "__main__":`, and with so many images that processes are started."""
    (tmp_path / "images").mkdir()
    names = [f"{number}.png" for number in range(600)]
    for name in names:
        Image.new("RGB", (4, 4), (9, 9, 200)).save(tmp_path / "images" / name)
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    records = [{"image": name, "conversations": turns} for name in names]
    (tmp_path / "pool.json").write_text(json.dumps(records))
    (tmp_path / "mine.py").write_text(SCRIPT)
    given = {"file": (["mine.py"], None), "stdin": (["-"], SCRIPT)}
    arguments, text = given[way]
    done = run_script(tmp_path, *arguments, input=text)
    assert (done.returncode, done.stdout) == (0, "600 600\n"), done.stderr


def end_at(place, number):
    if number == place:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_at(place, number):
    return 1 // (number - place)


def say(number):
    os.write(1, b"heard")
    return [number]


def test_the_values_are_those_of_one_process_whatever_it_prints(capfd):
    made = list(map_spawned(say, range(50), fewest=2, per_task=3))
    assert made == [[number] for number in range(50)]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("function", "code", "said"), [(end_at, "-9", ""), (fail_at, "1", "ZeroDivisionError")]
)
def test_a_process_that_ends_is_an_error_of_one_line(capfd, function, code, said):
    with pytest.raises(UserError, match=rf"has ended \(code {code}\).*short of memory"):
        list(map_spawned(partial(function, 30), range(50), fewest=2, per_task=2))
    assert said in capfd.readouterr().err


def own_number(_):
    return os.getpid()


def test_no_process_is_left():
    made = map_spawned(own_number, range(50), fewest=2)
    number = next(made)
    assert number != os.getpid()
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
