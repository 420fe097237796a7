from __future__ import annotations

import subprocess
import sys

import datahub
from datahub.core.settings import Settings


def test_every_name_is_there() -> None:
    assert {name: getattr(datahub, name) is not None for name in datahub.__all__} == dict.fromkeys(
        datahub.__all__, True
    )


def test_pack_is_a_function_and_a_package(settings: Settings) -> None:
    made = datahub.pack("shapes:train=12,test=9,seed=3", "tiny@1.0", settings=settings)
    assert {name: len(split) for name, split in made.splits.items()} == {"train": 12, "test": 9}
    from datahub.pack.plan import plan

    assert callable(plan)
    again = datahub.open("tiny", settings)
    assert again["train"][0]["image"].shape[0] == 3


def test_pack_works_before_anything_was_imported() -> None:
    code = "import datahub; assert callable(datahub.pack); import datahub.pack.plan; assert callable(datahub.pack)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_importing_costs_nothing() -> None:
    code = "import sys, datahub; print([m for m in ('numpy', 'torch', 'click', 'msgspec') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
