"""What an operator may get wrong: told in one line, that names it, before anything is served."""

from __future__ import annotations

import subprocess

import pytest

from datahub.cli.app import root, run
from datahub.core import private
from datahub.core.errors import BadArgument
from datahub.serve.config import ServeConfig, exposures, resolve, tokens_of
from datahub.serve.origins import normal, shown
from datahub.serve.transport import tls
from datahub.wire.tokens import token_of


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


def secret(path, mode):
    path.write_text("t" * 32)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o646, 0o777])
def test_a_secret_that_everybody_may_write_is_refused(tmp_path, capfd, mode):
    path = secret(tmp_path / "secret", mode)
    for config in (ServeConfig(token_file=path), ServeConfig(admin_token_file=path)):
        with pytest.raises(BadArgument, match="everybody may write it; run `chmod 600"):
            tokens_of(config)
    with pytest.raises(BadArgument, match=r"--key.*everybody may write it"):
        tls(ServeConfig(cert=tmp_path / "cert", key=path))
    with pytest.raises(BadArgument, match=r"DATAHUB_TOKEN_FILE.*everybody may write it"):
        token_of({"DATAHUB_TOKEN_FILE": str(path)})
    (tmp_path / "link").symlink_to(path)  # as Kubernetes mounts them
    assert run(root, ["serve", "--port", "0", "--token-file", str(tmp_path / "link")]) == 2
    assert "everybody may write it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("mode", "other", "said"),
    [
        (0o600, False, ""),
        (0o400, False, ""),
        (0o640, False, "its group may read it"),
        (0o660, False, "its group may write it"),
        (0o644, False, "everybody may read it"),
        (0o444, True, "everybody may read it"),  # a secret of Docker
        (0o440, True, ""),  # of Kubernetes, with fsGroup
        (0o460, True, "its group may write it"),
    ],
)
def test_a_secret_that_others_can_read_is_told_and_taken(tmp_path, monkeypatch, mode, other, said):
    path = secret(tmp_path / "secret", mode)
    if other:
        monkeypatch.setattr(private.os, "geteuid", lambda: path.stat().st_uid + 1)
    config = ServeConfig(token_file=path, key=path, cert=path)
    assert tokens_of(config).read == ("t" * 32,)
    notes = exposures(config)
    hint = "" if other else f"; run `chmod 600 {path}`"
    assert [each.message for each in notes] == ([f"{path}: {said}{hint}"] * 2 if said else [])
    assert all(each.warning for each in notes)


def test_what_is_no_file_has_no_mode_to_look_at(tmp_path):
    private.check(tmp_path / "none", "x")
    assert not private.exposed(tmp_path / "none")
    (tmp_path / "folder").mkdir(mode=0o777)
    private.check(tmp_path / "folder", "x")


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
