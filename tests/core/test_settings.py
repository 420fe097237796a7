from __future__ import annotations

from pathlib import Path

import pytest

from datahub.core.errors import BadArgument
from datahub.core.settings import resolve


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('home = "/from/config"\noffline = true\ncache_limit = "2GB"\nstores = ["/one", "/two"]\n')
    return path


def test_flag_beats_environment_beats_file_beats_default(config: Path, tmp_path: Path) -> None:
    environ = {"DATAHUB_HOME": "/from/environment"}
    assert resolve({"home": "/from/flag"}, environ, config).home == Path("/from/flag")
    assert resolve({}, environ, config).home == Path("/from/environment")
    assert resolve({}, {}, config).home == Path("/from/config")
    default = resolve({}, {}, tmp_path / "none.toml")
    assert default.home.name == "datahub"
    assert str(default.origins["home"]) == "default"


def test_every_value_says_where_it_came_from(config: Path) -> None:
    found = resolve({"home": "/x"}, {"DATAHUB_FROM": "http://mirror"}, config)
    assert str(found.origins["home"]) == "flag --home"
    assert str(found.origins["from_"]) == "environment DATAHUB_FROM"
    assert found.origins["offline"].kind == "config.toml"
    assert found.stores == (Path("/one"), Path("/two"))
    assert found.cache_limit == 2 * 10**9


@pytest.mark.parametrize(
    ("environ", "names"),
    [({"DATAHUB_OFFLINE": "maybe"}, "DATAHUB_OFFLINE"), ({"DATAHUB_CACHE_LIMIT": "lots"}, "DATAHUB_CACHE_LIMIT")],
)
def test_a_wrong_value_names_its_variable(environ: dict[str, str], names: str, tmp_path: Path) -> None:
    with pytest.raises(BadArgument) as caught:
        resolve({}, environ, tmp_path / "none.toml")
    assert names in str(caught.value)


@pytest.mark.parametrize("text", ["home = ", 'hom = "/x"'])
def test_a_wrong_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(BadArgument) as caught:
        resolve({}, {}, tmp_path / "config.toml")
    assert "config.toml" in str(caught.value)


def test_a_relative_home_is_made_absolute(tmp_path: Path) -> None:
    assert resolve({"home": "here"}, {}, tmp_path / "none.toml").home.is_absolute()
