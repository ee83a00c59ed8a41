"""The same records in every layout that pools come in: what other trainers and hubs write.

A record is an image, a question, an answer and (every third) a system line; each function writes
all of them to a folder and returns what `data` says of it.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value
from support.tiny import COLOURS, SHAPES, draw_image

Rows = list[dict[str, Any]]


def draw_records(folder: Path, number: int) -> Rows:
    """`number` records, and their images in `folder`/images/coco."""
    (folder / "images/coco").mkdir(parents=True)
    rows = []
    for i in range(number):
        name = f"coco/{i}.png"
        draw_image(folder / "images" / name, i)
        question = f"what shape is image {i}?\nis it {COLOURS[i % 4]}?"
        rows.append({"name": name, "question": question, "answer": f"{SHAPES[i % 2]} {i}"})
    return rows


def _llava(row: dict[str, Any], image: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": f"<image>\n{row['question']}"},
        {"from": "gpt", "value": row["answer"]},
    ]
    return {"image": image, "conversations": turns}


def _messages(row: dict[str, Any], *parts: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": row["question"]}]
    answer = [{"type": "text", "text": row["answer"]}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def _write(path: Path, records: Rows) -> dict[str, Any]:
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"records": str(path)}


def _path(folder: Path, row: dict[str, Any]) -> Path:
    return folder / "images" / row["name"]


def _bytes(folder: Path, row: dict[str, Any]) -> bytes:
    return _path(folder, row).read_bytes()


def llava_json(folder: Path, rows: Rows) -> dict[str, Any]:
    return _write(folder / "pool.json", [_llava(row, row["name"]) for row in rows])


def llava_lines(folder: Path, rows: Rows) -> dict[str, Any]:
    return _write(folder / "pool.jsonl", [_llava(row, row["name"]) for row in rows])


def openai_data_uri(folder: Path, rows: Rows) -> dict[str, Any]:
    def part(row: dict[str, Any]) -> dict[str, Any]:
        uri = f"data:image/png;base64,{base64.b64encode(_bytes(folder, row)).decode()}"
        return {"type": "image_url", "image_url": {"url": uri}}

    return _write(folder / "pool.jsonl", [_messages(row, part(row)) for row in rows])


def openai_paths(folder: Path, rows: Rows) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": row["name"]}} for row in rows]
    records = [_messages(row, part) for row, part in zip(rows, parts, strict=True)]
    return _write(folder / "pool.jsonl", records)


def qwen_file_uri(folder: Path, rows: Rows) -> dict[str, Any]:
    parts = [{"type": "image", "image": f"file://{_path(folder, row)}"} for row in rows]
    records = [_messages(row, part) for row, part in zip(rows, parts, strict=True)]
    return _write(folder / "pool.jsonl", records)


def qwen_image_last(folder: Path, rows: Rows) -> dict[str, Any]:
    """Untyped parts, the image behind the text, as text of its own line breaks."""
    records = []
    for row in rows:
        parts = [{"text": row["question"] + "\n"}, {"image": row["name"]}]
        answer = {"role": "assistant", "content": row["answer"]}
        records.append({"messages": [{"role": "user", "content": parts}, answer]})
    return _write(folder / "pool.json", records)


def ms_swift(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [
        {
            "messages": [
                {"role": "user", "content": f"<image>\n{row['question']}"},
                {"role": "assistant", "content": row["answer"], "loss": True},
            ],
            "images": [row["name"]],
        }
        for row in rows
    ]
    return _write(folder / "pool.jsonl", records)


def query_response(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [
        {"query": row["question"], "response": row["answer"], "images": [row["name"]]}
        for row in rows
    ]
    return _write(folder / "pool.jsonl", records)


def llamafactory_alpaca(folder: Path, rows: Rows) -> dict[str, Any]:
    records = []
    for row in rows:
        instruction, added = f"<image>\n{row['question']}".rsplit("\n", 1)
        record = {"instruction": instruction, "input": added, "output": row["answer"]}
        records.append({**record, "system": "", "history": [], "images": [row["name"]]})
    return _write(folder / "pool.json", records)


def llamafactory_sharegpt(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [{**_llava(row, None), "images": [row["name"]], "tools": ""} for row in rows]
    return _write(folder / "pool.json", records)


def flat_columns(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [
        {"img": row["name"], "asked": row["question"], "said": row["answer"]} for row in rows
    ]
    columns = {"image": "img", "question": "asked", "answer": "said"}
    return {**_write(folder / "pool.jsonl", records), "columns": columns}


def parquet_bytes(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [_llava(row, {"bytes": _bytes(folder, row), "path": row["name"]}) for row in rows]
    pq.write_table(pa.Table.from_pylist(records), folder / "pool.parquet")
    return {"records": str(folder / "pool.parquet")}


def parquet_binary(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [_llava(row, _bytes(folder, row)) for row in rows]
    pq.write_table(pa.Table.from_pylist(records), folder / "pool.parquet")
    return {"records": str(folder / "pool.parquet")}


def parquet_null_bytes(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [_llava(row, [{"bytes": None, "path": row["name"]}]) for row in rows]
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.Table.from_pylist(records)
    column = pa.array([record["image"] for record in records], kind)
    pq.write_table(table.set_column(0, "image", column), folder / "pool.parquet")
    return {"records": str(folder / "pool.parquet")}


def saved_paths(folder: Path, rows: Rows) -> dict[str, Any]:
    """An Image column of paths, whose bytes `save_to_disk` takes in."""
    records = [_llava(row, str(_path(folder, row))) for row in rows]
    Dataset.from_list(records).cast_column("image", Image()).save_to_disk(folder / "pool")
    return {"records": str(folder / "pool")}


def saved_list(folder: Path, rows: Rows) -> dict[str, Any]:
    """TRL's: a list of images as bytes, parts of several types in one struct."""
    part = {"type": Value("string"), "text": Value("string")}
    features = Features(
        {
            "messages": List({"role": Value("string"), "content": List(part)}),
            "images": List(Image()),
        }
    )
    records = [
        {
            "images": [{"bytes": _bytes(folder, row), "path": None}],
            "messages": [
                {
                    "role": turn["role"],
                    "content": [{"text": None, **given} for given in turn["content"]],
                }
                for turn in _messages(row, {"type": "image"})["messages"]
            ],
        }
        for row in rows
    ]
    Dataset.from_list(records, features=features).save_to_disk(folder / "pool")
    return {"records": str(folder / "pool")}


def webdataset(folder: Path, rows: Rows) -> dict[str, Any]:
    with tarfile.open(folder / "pool.tar.gz", "w:gz") as archive:
        for number, row in enumerate(rows):
            described = json.dumps(_llava(row, row["name"])).encode()
            for suffix, content in (("png", _bytes(folder, row)), ("json", described)):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return {"records": str(folder / "pool.tar.gz")}


def absolute_paths(folder: Path, rows: Rows) -> dict[str, Any]:
    return _write(folder / "pool.json", [_llava(row, str(_path(folder, row))) for row in rows])


def absolute_in_roots(folder: Path, rows: Rows) -> dict[str, Any]:
    config = absolute_paths(folder, rows)
    (folder / "empty").mkdir()
    return {**config, "image_dir": str(folder / "empty"), "image_roots": [str(folder / "images")]}


def windows_paths(folder: Path, rows: Rows) -> dict[str, Any]:
    records = [_llava(row, row["name"].replace("/", "\\")) for row in rows]
    return _write(folder / "pool.json", records)


def utf16(folder: Path, rows: Rows) -> dict[str, Any]:
    config = llava_json(folder, rows)
    path = Path(config["records"])
    path.write_text(path.read_text(), encoding="utf-16")
    return config


LAYOUTS: dict[str, Callable[[Path, Rows], dict[str, Any]]] = {
    layout.__name__: layout
    for layout in (
        llava_json,
        llava_lines,
        llamafactory_sharegpt,
        llamafactory_alpaca,
        openai_paths,
        openai_data_uri,
        qwen_file_uri,
        qwen_image_last,
        ms_swift,
        query_response,
        flat_columns,
        parquet_bytes,
        parquet_binary,
        parquet_null_bytes,
        saved_paths,
        saved_list,
        webdataset,
        absolute_paths,
        absolute_in_roots,
        windows_paths,
        utf16,
    )
}
