"""The GPU benchmark runs, so that the first thing a card sees is not a typing error."""

from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch

from datahub.loader.getting import pack
from tests.benchmarks import bench_gpu
from tests.benchmarks._gpu_peers import PEERS, Missing


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> bench_gpu.Bench:
    work = tmp_path_factory.mktemp("bench")
    made = bench_gpu.Bench(argparse.Namespace(small=True, work=work, rounds=1, device="cpu"))
    folder = work / "folder" / "class0"
    folder.mkdir(parents=True)
    for row, data in enumerate(bench_gpu.drawn(4, small=True)):
        (folder / f"{row}.jpg").write_bytes(data)
    pack(f"imagefolder:{folder.parent}", "gpubench@1/published", settings=made.settings(), jobs=1)
    bench_gpu._cifar(made)
    return made


@pytest.mark.filterwarnings("ignore:The image decoding")  # a peer uses what torchvision retires
@pytest.mark.parametrize("row", ["published", "torchvision", "kernel", "cifar"])
def test_rows(bench, row):
    found = bench_gpu.row_of(bench, row)
    assert found["microseconds" if row == "kernel" else "images_s"] > 0


def test_what_is_not_here_says_why(bench):
    for name in set(PEERS) - {"torchvision"}:
        with pytest.raises(Missing):
            bench_gpu.peer(bench, name)
    with pytest.raises(Missing, match="jpegtran"):
        bench_gpu.row_of(bench, "tiled")


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
