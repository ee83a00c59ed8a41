"""Run the commands of docs/tutorial.md in an empty folder, and put what they print below them.

    python scripts/write_tutorial.py

The reader's records, photographs and model are played by drawn ones and by a tiny random LLaVA, so
that it takes two minutes and no download; the page says so. A `yaml` block becomes my.yaml; every
command of a `bash` block is run, and a `text` block right behind is replaced by what was printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
NUM_RECORDS = 300
WIDTH = 88
"""Of the tables, in characters."""
_BLOCK = re.compile(r"```(yaml|bash)\n(.*?)```\n(\n```text\n.*?```\n)?", re.DOTALL)
_REMARKS = re.compile(
    r"^.*(real_accelerator|Setting accelerator|it/s|s/it|FutureWarning|warnings\.warn\(|\d left"
    r"|training, step: ).*\n",
    re.MULTILINE,
)
"""Bars that move, lines on the way, and what libraries say to developers."""
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", re.MULTILINE)
_THUMBNAILS = re.compile(r"/\S*prism_tune_preview_\w+/")


def main() -> None:
    """Rewrite the page."""
    with tempfile.TemporaryDirectory() as temporary:
        PAGE.write_text(write_page(Path(temporary)))


def write_page(folder: Path) -> str:
    """The page with what its commands print in this folder, which is empty."""
    draw_belongings(folder)
    os.environ["PRISM_TUNE_CACHE"] = str(folder / "cache")
    with contextlib.chdir(folder):
        return _BLOCK.sub(lambda block: follow(block, folder), PAGE.read_text())


def follow(block: re.Match[str], folder: Path) -> str:
    """Do what a block says; the block with what was printed."""
    kind, text, shown = block.groups()
    if kind == "yaml":
        (folder / "my.yaml").write_text(text)
        return block[0]
    printed = [run(line) for line in text.splitlines() if line.startswith("prism-tune")]
    scores, marks = folder / "runs/mine/selection/scores.parquet", folder / "marks-mine.json"
    if scores.exists() and not marks.exists():
        mark_by_hand(scores, marks)
    if shown is None:
        return block[0]
    return f"```bash\n{text}```\n\n```text\n{''.join(printed).strip()}\n```\n"


def run(line: str) -> str:
    """What a command prints in a process of its own, as in a pipe: lines for bars."""
    from support.verbs import run_verb

    done = run_verb(*shlex.split(line)[1:], environment={"COLUMNS": str(WIDTH)})
    if done.returncode:
        raise SystemExit(f"{line}\n{done.stdout}{done.stderr}")
    return clean((done.stderr + done.stdout).replace(str(Path.cwd()), "/home/me"))


def clean(text: str) -> str:
    """Without times and remarks, blanks at the ends of lines, and empty lines that they leave."""
    told = _THUMBNAILS.sub("/tmp/", _TIME.sub("", _REMARKS.sub("", text)))
    bare = re.sub(r"[ \t]+$", "", told, flags=re.MULTILINE)
    return re.sub(r"\n{2,}(?!- |\|)", "\n", bare)


def mark_by_hand(scores: Path, marks: Path) -> None:
    """What clicks in the report leave: two dropped records to keep, a kept one to drop."""
    rows = pq.read_table(scores).to_pylist()
    dropped = [row["uid"] for row in rows if row["reason"] == "below_cut"]
    kept = [row["uid"] for row in rows if row["reason"] == "selected"]
    marked = {"keep": dropped[:2], "drop": kept[:1], "look_again": dropped[2:4]}
    marks.write_text(json.dumps(marked))


def draw_belongings(folder: Path) -> None:
    """my.jsonl and photos/, exam.jsonl and exam/, model/."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.tiny import COLOURS, SHAPES, draw_image, save_tiny_llava

    save_tiny_llava(folder / "model")
    for images, records, number in (("photos", "my", NUM_RECORDS), ("exam", "exam", 40)):
        (folder / images).mkdir()
        lines = []
        for index in range(number):
            place = index % 200 if images == "photos" else index
            draw_image(folder / images / f"{place}.png", place)
            answer = (COLOURS[place % 4], SHAPES[place % 2])[index % 2]
            question = f"what {('color is it', 'shape is it')[index % 2]}?"
            lines.append({"image": f"{place}.png", "question": question, "answer": answer})
        text = "\n".join(map(json.dumps, lines))
        (folder / f"{records}.jsonl").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
