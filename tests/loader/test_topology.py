from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from datahub.core.errors import BadArgument
from datahub.core.settings import Settings
from datahub.loader import workers
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology, resolve_topology
from tests.loader.conftest import seen
from tests.store.builder import tiny_variant


def test_the_argument_wins():
    assert resolve_topology(Topology(1, 2), {"RANK": "0", "WORLD_SIZE": "8"}) == Topology(1, 2)


def test_the_environment_is_next():
    assert resolve_topology(None, {"RANK": "5", "WORLD_SIZE": "8"}) == Topology(5, 8)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "SLURM_NTASKS": "8"}
    assert resolve_topology(None, torchrun) == Topology(5, 8, 1, 2)
    assert resolve_topology(None, {}) == resolve_topology(None, {"SLURM_NTASKS": "1"}) == Topology(0, 1)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS=4.*pass topology="),
        ({"RANK": "1"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "1"}, "RANK is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x': is not a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank=2"),
    ],
)
def test_half_a_topology_is_an_error(environ, message):
    with pytest.raises(BadArgument, match=message):
        resolve_topology(None, environ)


@pytest.mark.parametrize("facts", [(0, 0), (-1, 2), (2, 2), (0, 1, 1, 1), (0, 1, 0, 0)])
def test_impossible_ones_are_refused(facts):
    with pytest.raises(BadArgument):
        Topology(*facts)


def test_from_mesh():
    class Mesh:
        ndim = 1

        def get_local_rank(self):
            return 3

        def size(self):
            return 4

    assert Topology.from_mesh(Mesh()) == Topology(3, 4)
    Mesh.ndim = 2
    with pytest.raises(BadArgument, match=r'mesh\["dp"\]'):
        Topology.from_mesh(Mesh())


def test_the_loader_takes_it_from_the_environment_when_it_needs_it(make, monkeypatch):
    loader = make(batch_size=4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert next(iter(loader))["index"].tolist() == [4, 5, 6, 7]
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(BadArgument, match="SLURM_NTASKS"):
        iter(make(batch_size=4))


def cgroups(folder: Path, line: str, **files: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = folder / "own"
    own.write_text(line)
    return folder, own


@pytest.mark.parametrize(
    ("line", "files", "cpus"),
    [
        ("0::/job/step\n", {"job__cpu_dot_max": "150000 100000\n", "job__step__cpu_dot_max": "max 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "300000 100000"}, 3),
        ("0::/\n", {"cpu_dot_max": "50000 100000"}, 1),
        (
            "4:cpu,cpuacct:/j\n",
            {"cpu__j__cpu_dot_cfs_quota_us": "200000", "cpu__j__cpu_dot_cfs_period_us": "100000"},
            2,
        ),
        ("4:cpu,cpuacct:/j\n", {"cpu__j__cpu_dot_cfs_quota_us": "-1", "cpu__j__cpu_dot_cfs_period_us": "100000"}, 6),
        ("7:memory:/j\n", {"cpu_dot_max": "100000 100000"}, 6),
        ("", {}, 6),
    ],
)
def test_cpus_by_affinity_and_quota(tmp_path, monkeypatch, line, files, cpus):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: set(range(6)))
    assert workers.available_cpus(*cgroups(tmp_path, line, **files)) == cpus


def test_ranks_of_a_machine_share_its_cpus(monkeypatch):
    monkeypatch.setattr(workers, "available_cpus", lambda: 64)
    assert workers.default_workers({}) == workers.MOST
    assert workers.default_workers({"LOCAL_WORLD_SIZE": "8"}) == 8
    assert workers.default_workers({"LOCAL_WORLD_SIZE": "100"}) == 1


def rank_main(rank: int, world_size: int, home: Path, rendezvous: str, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    replicas = init_device_mesh("cpu", (world_size, 1), mesh_dim_names=("dp", "tp"))
    assert Topology.from_mesh(replicas["dp"]) == Topology(rank, world_size)
    assert Topology.from_mesh(replicas["tp"]) == Topology(0, 1)
    one = init_device_mesh("cpu", (1, world_size), mesh_dim_names=("dp", "tp"))
    assert Topology.from_mesh(one["dp"]) == Topology(0, 1), "ranks that share a replica get the same batches"
    with pytest.raises(BadArgument, match=r'2 dimensions.*mesh\["dp"\]'):
        Topology.from_mesh(one)
    with StreamingLoader("tiny", global_batch_size=8, shuffle=True, num_workers=1, settings=Settings(home)) as loader:
        rows = [",".join(map(str, seen([batch]))) for batch in loader]
    (out / f"{rank}.txt").write_text("\n".join(rows))
    dist.destroy_process_group()


def test_two_real_ranks(tmp_path):
    tiny_variant(tmp_path / "home", splits={"train": 50})
    mp.spawn(rank_main, args=(2, tmp_path / "home", str(tmp_path / "meet"), tmp_path), nprocs=2)
    parts = [(tmp_path / f"{rank}.txt").read_text().split("\n") for rank in range(2)]
    with StreamingLoader("tiny", global_batch_size=8, shuffle=True, settings=Settings(tmp_path / "home")) as loader:
        whole = [seen([batch]) for batch in loader]
    joined = [[int(row) for text in pair for row in text.split(",") if row] for pair in zip(*parts, strict=True)]
    assert joined == whole
