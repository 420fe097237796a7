"""The GPU benchmark runs, so that the first thing a card sees is not a typing error."""

from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch

from datahub.loader.getting import pack
from tests.benchmarks import _gpu_data, _gpu_rows, bench_gpu
from tests.benchmarks._gpu_peers import PEERS, Missing


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> bench_gpu.Bench:
    work = tmp_path_factory.mktemp("bench")
    made = bench_gpu.Bench(argparse.Namespace(small=True, work=work, rounds=1, device="cpu"))
    folder = work / "folder" / "class0"
    folder.mkdir(parents=True)
    for row, data in enumerate(_gpu_data.drawn(4, small=True)):
        (folder / f"{row}.jpg").write_bytes(data)
    pack(f"imagefolder:{folder.parent}", "gpubench@1/published", settings=made.settings(), jobs=1)
    _gpu_data.small_images(made)
    return made


@pytest.mark.filterwarnings("ignore:The image decoding")  # a peer uses what torchvision retires
@pytest.mark.parametrize(
    "row", ["device", "published", "published residency=encoded", "torchvision", "kernel", "cifar"]
)
def test_rows(bench, row):
    found = _gpu_rows.row_of(bench, row)
    assert found[{"kernel": "microseconds", "device": "copy_gb_s"}.get(row, "images_s")] > 0
    assert found.get("is_the_reference", True) and not found.get("refused")


def options(bench, **more) -> argparse.Namespace:
    common = {"work": bench.work, "device": "cpu", "rounds": 1, "small": True, "minutes": 8.0}
    return argparse.Namespace(**{**common, **more})


def test_a_row_that_fails_says_so_and_is_all_that_fails(bench, tmp_path):
    found = bench_gpu.told("published", options(bench, work=tmp_path / "nothing"), 60.0)
    assert found["row"] == "published" and "skipped" not in found and found["failed"]
    assert "NotInStore" in str(found["failed"]) or "not" in str(found["failed"])


def test_no_row_begins_when_time_is_up(bench):
    assert "--minutes 8 are over" in bench_gpu.told("kernel", options(bench), 0.0)["skipped"]


def test_what_was_asked_for_stands_beside_what_came_of_it():
    rows = {"published": {"images_s": 900}, "tiled share=0.5": {"images_s": 1200}, "torchvision": {"images_s": 400}}
    rows |= {"dali": {"skipped": "not here"}, "kernel": {"share_of_copy": 0.8}, "step": {"failed": ["..."]}}
    assert bench_gpu.reached(rows) == {"ours_of_torchvision": [3.0, 2.0], "kernel": [0.8, 0.7]}
    assert bench_gpu.reached({"step": {"failed": "..."}}) == {}


def test_what_is_not_here_says_why(bench):
    for name in set(PEERS) - {"torchvision"}:
        with pytest.raises(Missing):
            _gpu_rows.peer(bench, name)
    with pytest.raises(Missing, match="jpegtran"):
        _gpu_rows.row_of(bench, "tiled")


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--help"])
    with pytest.raises(SystemExit) as left:
        bench_gpu.main()
    assert left.value.code == 0 and "--only ROW" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_card_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    bench_gpu.main()
    assert "no CUDA device" in json.loads(capsys.readouterr().out)["skipped"]
