"""What `datahub doctor` says of the token for cache servers."""

from __future__ import annotations

import pytest

from datahub.core.settings import Settings
from datahub.loader.doctor import examine


@pytest.mark.parametrize(
    ("mode", "level", "found"),
    [(0o600, "ok", "from DATAHUB_TOKEN_FILE"), (0o644, "warning", "may read it"), (0o606, "failure", "write")],
)
def test_a_token_that_others_can_read_is_told(tmp_path, settings: Settings, mode, level, found):
    path = tmp_path / "token"
    path.write_text("t" * 32)
    path.chmod(mode)
    by_check = {each.check: each for each in examine(settings, {"DATAHUB_TOKEN_FILE": str(path)})}
    told = by_check.get("token", by_check.get("check"))
    assert told.level == level and found in told.found


def test_a_token_of_the_environment_is_not_shown(settings: Settings):
    told = list(examine(settings, {"DATAHUB_TOKEN": "t" * 32}))
    assert [each.found for each in told if each.check == "token"] == ["from DATAHUB_TOKEN"]
    assert "t" * 32 not in str(told)
