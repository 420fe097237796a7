"""TOML text into a `Manifest`, or every problem of it at once, each with its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from datahub.core.digests import sha256_hex
from datahub.core.errors import ManifestInvalid, NotReadable, Problem
from datahub.registry import layouts, rules
from datahub.registry.schema import SCHEMA, Manifest
from datahub.registry.walk import Problems, too_deep, walk

NOT_IDENTITY = ("schema", "tried", "access")
"""Keys that say how a dataset is written down, tried or got, not what it is; so do its files' mirrors."""


def load(path: Path) -> Manifest:
    """The manifest in a file; raises `ManifestInvalid`, or `NotReadable`."""
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A manifest file's text; raises `ManifestInvalid` where it is not UTF-8, `NotReadable` where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        problem = Problem(f"byte {error.start}", "is not UTF-8 text; TOML files are")
        raise ManifestInvalid(str(path), [problem]) from error


def parse(text: str, path: str) -> Manifest:
    """Read TOML ``text``; ``path`` is what errors call it. Raises `ManifestInvalid` with all problems."""
    return from_dict(decode(text, path), path)


def decode(text: str, path: str) -> dict[str, Any]:
    """TOML into a plain table, not yet checked; raises `ManifestInvalid` with the line and column of a mistake."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = _syntax(str(error))
    except RecursionError:
        problem = Problem("the whole file", "is nested too deeply")
    except ValueError as error:  # numbers beyond what Python converts
        problem = Problem("the whole file", f"is not TOML: {error}")
    raise ManifestInvalid(path, [problem])


def _syntax(message: str) -> Problem:
    match = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message, re.DOTALL)
    return Problem(match[2], f"not TOML: {match[1]}") if match else Problem("the whole file", f"not TOML: {message}")


def from_dict(facts: Mapping[str, Any], path: str = "the manifest") -> Manifest:
    """A manifest from plain data, shaped as the TOML file is. Raises `ManifestInvalid` with all problems."""
    table = dict(facts)
    report = Problems()
    if (newer := table.get("schema")) and isinstance(newer, int) and newer > SCHEMA:
        # Its other keys mean what this version cannot know, so nothing else is worth saying.
        shown = newer if newer < 1 << 31 else "this"
        report("schema", f"{shown} is newer than this datahub reads ({SCHEMA}): upgrade datahub")
    elif too_deep(table):
        report("the whole file", "is nested too deeply")
    else:
        found = walk(Manifest, table, "", report)
        if found.get("schema", SCHEMA) < 1:
            report("schema", f"must be from 1 to {SCHEMA}")
        for rule in (*rules.RULES, layouts.check):
            rule(found, report)
        if not report:
            return _sealed(msgspec.convert(found, Manifest))
    raise ManifestInvalid(path, report.all())


def to_dict(manifest: Manifest) -> dict[str, Any]:
    """Plain data that `from_dict` turns into the same manifest; a fresh copy throughout."""
    facts: dict[str, Any] = msgspec.to_builtins(manifest)
    facts.pop("digest", None)
    return facts


def digest_of(manifest: Manifest) -> str:
    """``sha256:...`` over what the dataset is, in canonical JSON: sorted keys, defaults left out.

    Mirrors, access and how it was tried are not part of it: a moved mirror does not make another dataset.
    """
    facts = {key: value for key, value in to_dict(manifest).items() if key not in NOT_IDENTITY}
    for each in facts.get("files", ()):
        each.pop("mirrors", None)
    return "sha256:" + sha256_hex(msgspec.json.encode(facts, order="sorted"))


def _sealed(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, digest=digest_of(manifest))
