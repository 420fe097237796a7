"""What an operator may get wrong: told in one line, that names it, before anything is served."""

from __future__ import annotations

import subprocess

import pytest

from datahub.core.errors import BadArgument
from datahub.serve.config import ServeConfig, resolve
from datahub.serve.origins import normal, shown
from datahub.serve.transport import tls


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("port = 1.5", "port in .*: is no whole number"),
        ("port = true", "is no whole number"),
        ("rate = true", "is no number"),
        ('insecure = "maybe"', "is neither true nor false"),
        ("origin = 5", "is no list of URLs"),
        ("origin = {a = 1}", "is no list of URLs"),
        ('origin = ["s3://a", 5]', "is no list of URLs"),
        ("host = 5", "is no text"),
        ('token_file = ["tokens"]', "is no text"),
        ("[serve]\nport = 1", "is not a setting"),
        ("port =", "is not TOML"),
    ],
)
def test_mistakes_in_a_file(tmp_path, line, said):
    file = tmp_path / "serve.toml"
    file.write_text(line)
    with pytest.raises(BadArgument, match=said):
        resolve({}, {}, file)


def test_paths_that_cannot_be_what_they_are_given_for(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadArgument, match=r"--cache-dir.* is no folder"):
        resolve({"cache_dir": str(tmp_path / "file")}, {}, None)
    with pytest.raises(BadArgument, match="is no folder that is there"):
        normal(str(tmp_path / "mistyped"))


def test_an_origins_secrets_are_not_shown():
    assert shown("https://user:word@host:1/place?sig=secret") == "https://host:1/place"
    assert shown("s3://bucket/place") == "s3://bucket/place" and shown("/srv/data@2") == "/srv/data@2"


def test_certificates_that_cannot_be_used(tmp_path):
    def made(name: str, *options: str) -> None:
        command = f"openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=x -keyout {name}.key -out {name}.pem"
        subprocess.run([*command.split(), *options], cwd=tmp_path, check=True, capture_output=True)

    made("one", "-nodes")
    made("other", "-nodes")
    made("locked", "-passout", "pass:word")
    (tmp_path / "empty").touch()
    for cert, key, said in (
        ("one.pem", "other.key", "key of another certificate"),
        ("locked.pem", "locked.key", "the key has a passphrase"),  # and nobody is asked for it
        ("empty", "one.key", "not PEM"),
        ("none", "one.key", "No such file"),
    ):
        with pytest.raises(BadArgument, match=said):
            tls(ServeConfig(cert=tmp_path / cert, key=tmp_path / key))
