"""Under Hugging Face Accelerate: a loader is its processes' own, and a DataLoader that would be cut up is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from datahub.core.errors import UsageError
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_read_their_own_shares(home: Settings, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--module", "tests.loader.accelerate_job", str(home.home), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    with StreamingLoader("tiny", global_batch_size=8, shuffle=True, settings=home) as loader:
        whole = [batch["index"].tolist() for batch in loader]
    for way in ("loader", "dataset"):
        assert [a + b for a, b in zip(ranks[0][way], ranks[1][way], strict=True)] == whole
    assert all(each["kept"] for each in ranks)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrapped_dataloader_is_refused(home: Settings, workers: int) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    with StreamingLoader("tiny", batch_size=8, settings=home) as loader:
        assert accelerator.prepare(loader) is loader
    dataset = StreamingDataset("tiny", batch_size=8, settings=home)
    plain = DataLoader(dataset, batch_size=None, num_workers=workers)
    assert sum(len(batch["index"]) for batch in plain) == 50
    with pytest.raises(UsageError, match=r"leave this DataLoader out of accelerator.prepare\(\)"):
        next(iter(accelerator.prepare(plain)))
