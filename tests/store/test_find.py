from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.core.errors import NotInStore, RecordInvalid
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store.find import find, find_place, list_local
from tests.registry import sample
from tests.store.builder import tiny_variant


def ref(settings: Settings, text: str) -> str:
    return str(find(settings, Ref.parse(text)).ref)


def test_newest_packed_version_by_default(settings: Settings) -> None:
    for version in ("1.9", "1.10", "1.2"):
        tiny_variant(settings.home, version=version)
    assert ref(settings, "tiny") == "tiny@1.10/published"
    assert ref(settings, "tiny@1.2") == "tiny@1.2/published"


def test_default_variant_is_the_manifests_never_whichever_is_there(settings: Settings) -> None:
    tiny_variant(settings.home, "emnist", variant="letters")
    with pytest.raises(NotInStore) as caught:
        find(settings, Ref("emnist"))
    assert "datahub fetch emnist" in str(caught.value)
    assert ref(settings, "emnist/letters") == "emnist@1.0/letters"
    tiny_variant(settings.home, "emnist", variant="balanced")
    assert ref(settings, "emnist") == "emnist@1.0/balanced"


def test_default_variant_of_what_no_manifest_knows_is_published(settings: Settings) -> None:
    tiny_variant(settings.home, "mine", variant="other")
    with pytest.raises(NotInStore):
        find(settings, Ref("mine"))
    tiny_variant(settings.home, "mine")
    assert ref(settings, "mine") == "mine@1.0/published"


def test_default_variant_of_an_old_version_is_that_of_the_newest_manifest(settings: Settings, tmp_path: Path) -> None:
    manifest = tmp_path / "digits.toml"
    manifest.write_text(sample.TEXT.replace('default_variant = "published"', 'default_variant = "few"'))
    settings = replace(settings, manifests=(manifest,))
    tiny_variant(settings.home, "digits", version="0.9", variant="few")
    assert ref(settings, "digits") == "digits@0.9/few"


def test_stores_are_searched_in_order_and_before_home(settings: Settings, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    settings = replace(settings, stores=(first, second))
    home = tiny_variant(settings.home)
    assert find(settings, Ref("tiny")).path == home
    shared = tiny_variant(second)
    assert find(settings, Ref("tiny")).path == shared
    nearest = tiny_variant(first)
    assert find(settings, Ref("tiny")).path == nearest
    tiny_variant(settings.home, version="2.0")
    assert find(settings, Ref("tiny")).root == settings.datasets
    assert [(str(each.ref), each.root) for each in list_local(settings)] == [
        ("tiny@1.0/published", first / "datasets"),
        ("tiny@2.0/published", settings.datasets),
    ]


def test_a_missing_store_is_no_error(settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, stores=(tmp_path / "unmounted",))
    assert list_local(settings) == []
    with pytest.raises(NotInStore):
        find(settings, Ref("mnist"))


def test_unknown_names_are_answered_with_near_ones(settings: Settings) -> None:
    with pytest.raises(NotInStore) as caught:
        find(settings, Ref("mnits"))
    assert "did you mean mnist" in str(caught.value)


def test_half_a_variant_is_not_there(settings: Settings) -> None:
    (tiny_variant(settings.home) / "dataset.json").unlink()
    with pytest.raises(NotInStore):
        find(settings, Ref("tiny"))
    assert list_local(settings) == []


def test_a_broken_record_is_told_by_find_and_left_out_of_the_list(settings: Settings) -> None:
    broken = tiny_variant(settings.home)
    tiny_variant(settings.home, "whole")
    (broken / "dataset.json").write_text("{")
    with pytest.raises(RecordInvalid):
        find(settings, Ref("tiny"))
    assert find_place(settings, Ref("tiny")).path == broken
    assert [each.ref.name for each in list_local(settings)] == ["whole"]


def test_variants_being_built_and_trash_are_not_listed(settings: Settings) -> None:
    built = tiny_variant(settings.home)
    shutil.copytree(built, settings.datasets / ".building" / ("a" * 64) / "out")
    assert len(list_local(settings)) == 1


def test_finding_and_quick_verifying_import_nothing_heavy(settings: Settings) -> None:
    tiny_variant(settings.home)
    code = (
        "import sys; from pathlib import Path; from datahub.core.refs import Ref\n"
        "from datahub.core.settings import Settings\n"
        "from datahub.store.find import find, list_local; from datahub.store.verify import verify\n"
        f"s = Settings(home=Path({str(settings.home)!r})); verify(find(s, Ref('tiny')), quick=True); list_local(s)\n"
        "print([m for m in ('numpy', 'pyarrow', 'fsspec', 'PIL', 'urllib3', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
