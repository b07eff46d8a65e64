"""Prints what `.wandb` files hold, as JSON: `python wandb_file.py FILE ...`, by W&B's own messages.

A file is a log in LevelDB's format after 7 bytes: blocks of 32 KiB with records of checksum, length and type. It runs
in a process of its own, as whatever imports wandb should in a test.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32 * 1024, struct.Struct("<IHB")
FULL, LAST = 1, 4


def records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(content):
        if BLOCK - position % BLOCK < HEAD.size:  # the rest of a block is padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = HEAD.unpack_from(content, position)
        position += HEAD.size
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def read(path: Path) -> dict[str, Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"history": [], "summary": {}}
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("run"):
            run = record.run
            config = {item.key: json.loads(item.value_json) for item in run.config.update}
            names = {"id": run.run_id, "name": run.display_name, "project": run.project, "group": run.run_group}
            found |= names | {"config": config}
        elif record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found["history"].append(items)
        elif record.HasField("summary"):
            update = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}
            found["summary"] |= update
        elif record.HasField("exit"):
            found["exit"] = record.exit.exit_code
    return found


if __name__ == "__main__":
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    print(json.dumps([read(Path(path)) for path in sys.argv[1:]]))
