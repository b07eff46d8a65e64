"""A damaged checkpoint is noticed wherever the damage is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from sqzlab.run import CHECKPOINT
from sqzlab.runs import checkpoint
from sqzlab.runs.lease import Lease


@pytest.mark.filterwarnings("ignore")  # of torch, about what it takes the damaged bytes for
def test_a_changed_byte_in_the_description_of_the_state_is_noticed(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path)
    for step in (1, 2):
        checkpoint.save(lease, "digest", {"step": step, "sums": torch.ones(2), "epochs": [{"lr": 0.1}]})
    path = tmp_path / CHECKPOINT
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
    whole = path.read_bytes()
    begin = whole.index(b"\x80\x02", entry.header_offset)
    for place in range(begin, begin + entry.file_size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = checkpoint.read(path, "digest")
        assert found is None, place
