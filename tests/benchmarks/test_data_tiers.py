"""The benchmarks of the data, rehearsed with tiny sizes; what they say of speed is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, ROOT)  # scripts beside the package, not parts of it
try:
    from benchmarks import data_tiers, gpu_data
finally:
    sys.path.remove(ROOT)


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(data_tiers, "DISTINCT", 3)
    monkeypatch.setattr(data_tiers, "EPOCHS", 2)
    return tmp_path / "found"


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # of a peer
def test_every_tier_memory_and_preparing_are_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["data_tiers", "--images", "4", "--rounds", "1", "--small", "20", "--processes", "0", "--out", str(small)]
    monkeypatch.setattr(sys, "argv", words)
    data_tiers.main()
    text = small.read_text()
    for name in (data_tiers.PEER, "pil", *data_tiers.GOALS):
        assert sum(line.startswith(f"{name:<24}") for line in text.splitlines()) == 2, name
    assert "predicted: cores that feed one H200" in text
    assert [line.split()[0] for line in text.splitlines() if line.endswith("%") or "GROWS" in line] == [
        "pil",
        "jpeg",
        "store",
    ]
    assert "prepare, 20 files of" in text


def test_ratios_are_of_the_same_round_and_cores_of_the_median() -> None:
    times = {data_tiers.PEER: [2.0, 4.0, 8.0], data_tiers.STORE: [0.1, 0.1, 0.1]}
    *_, last = data_tiers.table(times, 100, 2)
    assert last.split() == ["(b)", "store", "2000", "1000", "40.00", "20.00", "80.00", "20.0"]
    told = dict(line.split("  ", 1) for line in data_tiers.feeding(times, 100) if "  " in line)
    assert told[data_tiers.PEER].split() == ["320.0", "(464.0)", "720.0", "(1044.0)", "1424.0", "(2064.8)"]
    assert told[data_tiers.STORE].split() == ["8.0", "18.0", "35.6"]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no figures of memory on this system")
def test_memory_counts_what_a_process_and_its_child_hold() -> None:
    def told(held: int) -> tuple[float, float, float]:
        holding = f"held = b'x' * {held}; print(flush=True); input()"
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holding!r}])"
        with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            found = data_tiers.memory(process.pid)
            process.communicate(b"\n")
        return found

    # of processes of their own: what earlier tests left in this one may be given back in between
    assert all(380 < more - less < 420 for more, less in zip(told(400_000_000), told(1), strict=True))


def test_training_from_stores_is_told_against_synthetic_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.json"
    tiny = {
        "device": "cpu",
        "batch": "4",
        "images": "28",
        "sizes": "32",
        "rounds": "1",
        "workers": "0",
        "out": str(out),
    }
    words = [word for name, value in tiny.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["gpu_data", "--no-compile", *words])
    monkeypatch.setattr(gpu_data, "DISTINCT", 2)
    monkeypatch.setattr(gpu_data, "_cores", lambda: 0)
    assert gpu_data.main() == 0
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    assert [(row["size"], row["name"]) for row in found["rows"]] == [
        (32, n) for n in ("synthetic", "store", "resident")
    ]
    assert all(row["ratio"] > 0 and row["images_per_s"] > 0 for row in found["rows"][1:])
    assert "resident" in out.with_suffix(".txt").read_text()


def test_a_ratio_below_the_goal_is_missed() -> None:
    rows = [gpu_data.Row(224, gpu_data.SYNTHETIC, [100.0, 200.0]), gpu_data.Row(224, "store", [96.0, 192.0], 10**7)]
    told = {"images_per_s": 144.0, "cold_gb_per_s": 1.44, "ratio": 0.96, "met": False}
    assert gpu_data.judged(rows[1], rows) == told
    assert "       1.44" in list(gpu_data.table(rows))[-1]
    assert list(gpu_data.table(rows))[-1].endswith("0.960  0.97 MISSED")
