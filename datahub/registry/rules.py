"""What a manifest must obey beyond its types. Each rule looks at one part and reports every problem it sees there.

The rules get what `walk` found well-typed, so any field may be absent and any item of a list or table may be None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from datahub.core.digests import LENGTHS, Digest
from datahub.core.refs import NAME, SPLIT, VARIANT, VERSION
from datahub.registry.nearest import hint
from datahub.registry.walk import Report, under

Table = Mapping[str, Any]

ROLE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
TASK = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
HOSTED = ("http", "https", "ftp", "s3", "gs", "gcs", "hf")
"""Schemes whose URLs make no sense without a host or bucket."""

LONGEST_SPLIT = 64
"""Keys are `<split>-<9 digits>` and a shard member's name has at most 99 bytes."""
MOST_SAMPLES = 10**9
PARTIAL = (".part", ".part.json")
"""Endings that a download in progress adds to a file's name."""


def identity(table: Table, report: Report) -> None:
    """name, version, title, homepage, licence, task, tags."""
    _match(table, "name", NAME, "lower-case letters, digits, '.', '_' and '-'", report)
    _match(table, "version", VERSION, "letters, digits, '.', '_', '+' and '-', at most 32", report)
    _match(table, "task", TASK, "words joined by '-', like image-classification", report)
    if not table.get("title", "-").strip():
        report("title", "is empty")
    if "homepage" in table:
        _url(table["homepage"], "homepage", report)
    licence = table.get("licence", {})
    if "url" in licence:
        _url(licence["url"], "licence.url", report)
    if not licence.get("id", "-").strip():
        report("licence.id", "is empty; leave it out where the publisher states no licence")
    _texts(table.get("tags", ()), "tags", report)


def _match(table: Table, key: str, pattern: re.Pattern[str], form: str, report: Report) -> None:
    if key in table and not pattern.fullmatch(table[key]):
        report(key, f"{table[key]!r} is not a {key}: use {form}" if table[key] else "is empty")


def samples(table: Table, place: str, report: Report) -> None:
    """splits and classes, of the manifest (``place`` is "") or of a variant."""
    if "splits" in table:
        here = under(place, "splits")
        if not table["splits"]:
            report(here, "names no split")
        for name, count in table["splits"].items():
            _split(name, count, under(here, name), report)
    _texts(table.get("classes", ()), under(place, "classes"), report)


def words(table: Table, report: Report) -> None:
    """What classes are called: one for each, on one line; two classes may share theirs (ImageNet has two cranes)."""
    if "words" not in table:
        return
    found, classes = table["words"], table.get("classes", ())
    if len(found) != len(classes):
        report("words", f"must be as many as the classes: {len(found)} for {len(classes)}")
    for i, text in enumerate(found):
        if text is not None and (not text.strip() or not text.isprintable()):
            report(f"words[{i}]", f"{text!r} is not a name" if text else "is empty")


def own_samples(table: Table, report: Report) -> None:
    samples(table, "", report)


def _split(name: str, count: int | None, place: str, report: Report) -> None:
    if not SPLIT.fullmatch(name) or len(name) > LONGEST_SPLIT:
        report(place, f"{name!r} is not a split name: lower-case letters, digits and '_', at most {LONGEST_SPLIT}")
    elif count is not None and not 0 < count < MOST_SAMPLES:
        report(place, f"must be a number of samples from 1 to {MOST_SAMPLES - 1:,}, not {count}")


def _texts(texts: Sequence[str | None], place: str, report: Report) -> None:
    """Each is some text on one line, and none comes twice."""
    seen: dict[str, int] = {}
    for i, text in enumerate(texts):
        if text is None:
            continue
        if not text.strip() or not text.isprintable():
            report(f"{place}[{i}]", f"{text!r} is not a name" if text else "is empty")
        elif text in seen:
            report(f"{place}[{i}]", f"{text!r} is already {place}[{seen[text]}]")
        seen.setdefault(text, i)


def access(table: Table, report: Report) -> None:
    found = table.get("access", {})
    kind = found.get("kind", "open")
    if kind != "open" and "instructions" not in found:
        report("access.instructions", f"is missing: say what a person must do for access.kind = {kind!r}")
    elif kind != "open" and not found["instructions"].strip():
        report("access.instructions", f"is empty: say what a person must do for access.kind = {kind!r}")


def files(table: Table, report: Report) -> None:
    listed = table.get("files", [])
    for key in ("filename", "role"):
        _unique([each and each.get(key) for each in listed], "files", key, report)
    for i, each in enumerate(listed):
        if each is not None:
            _file(each, f"files[{i}]", report)


def _file(table: Table, place: str, report: Report) -> None:
    if "filename" in table and (wrong := _not_filename(table["filename"])):
        report(f"{place}.filename", wrong)
    if "role" in table and not ROLE.fullmatch(table["role"]):
        report(f"{place}.role", f"{table['role']!r} is not a role: use lower-case letters, digits, '-', '_' and '.'")
    if table.get("bytes", 1) <= 0:
        report(f"{place}.bytes", "must be more than 0; leave it out where it is not known")
    for algorithm, length in LENGTHS.items():
        if algorithm in table:
            _digest(algorithm, length, table[algorithm], f"{place}.{algorithm}", report)
    mirrors = table.get("mirrors", ())
    for i, url in enumerate(mirrors):
        if url is not None and url in mirrors[:i]:
            report(f"{place}.mirrors[{i}]", "is listed twice")
        elif url is not None:
            _url(url, f"{place}.mirrors[{i}]", report)


def _digest(algorithm: str, length: int, value: str, place: str, report: Report) -> None:
    try:
        Digest.parse(f"{algorithm}:{value}")
    except ValueError:
        shown = repr(value) if len(value) <= 80 else "this"
        report(place, f"{shown} is not a digest: write {length} lower-case hex digits, or leave it out")


def _unique(values: Sequence[str | None], place: str, key: str, report: Report) -> None:
    seen: dict[str, int] = {}
    for i, value in enumerate(values):
        if not value:
            continue
        folded = value.casefold()  # some disks do not tell A from a
        if folded in seen:
            report(f"{place}[{i}].{key}", f"{value!r} is already that of {place}[{seen[folded]}]")
        seen.setdefault(folded, i)


def _not_filename(name: str) -> str:
    """Why ``name`` is not a plain file name, or ""."""
    if not name:
        return "is empty"
    if "/" in name or "\\" in name or name in (".", "..") or re.match(r"[A-Za-z]:", name):
        return f"{name!r} must be a plain file name, without folders"
    if not name.isprintable() or name != name.strip() or len(name.encode()) > 200:
        return f"{name[:40]!r} must be printable, without spaces around it, at most 200 bytes"
    if name.endswith(PARTIAL):
        return f"{name!r} may not end like a download in progress ({' or '.join(PARTIAL)})"
    return ""


def _url(url: str, place: str, report: Report) -> None:
    if wrong := _not_url(url):
        report(place, wrong)


def _not_url(url: str) -> str:
    """Why ``url`` is not one to fetch from, or ""; never repeats a password."""
    scheme, colon, _ = url.partition("://")
    if not url.strip():
        return "is empty"
    if not colon or not SCHEME.fullmatch(scheme):
        return f"{url[:60]!r} is not a URL: it must begin with a scheme, like https://"
    if not url.isprintable() or " " in url:
        return "is not a URL: it holds spaces or control characters"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.username is not None or parts.password is not None:
        return "holds credentials: take them out of the URL"
    if scheme in HOSTED and not (parts.hostname and parts.netloc):
        return f"{url[:60]!r} is not a URL: it names no host"
    return ""


def variants(table: Table, report: Report) -> None:
    found: Table = table.get("variants", {"published": {}})
    if not found:
        report("variants", "names no variant; leave it out for the one called published")
    for name, each in found.items():
        place = under("variants", name)
        if not VARIANT.fullmatch(name):
            report(place, f"{name!r} is not a variant: use lower-case letters, digits, '_' and '-', at most 32")
        samples(each or {}, place, report)
        if each and "files" in each:
            _roles(each["files"], roles_of(table.get("files", ())), under(place, "files"), report)
    if "default_variant" not in table:
        if found and "published" not in found:
            report("default_variant", f"is missing: name one of {', '.join(sorted(found))}")
    elif found and table["default_variant"] not in found:
        given = table["default_variant"]
        report("default_variant", f"{given!r} is not a variant of this manifest; {hint(given, found)}")


def _roles(found: Sequence[str | None], known: frozenset[str] | None, place: str, report: Report) -> None:
    """The roles of the files that a variant is packed from."""
    if not found:
        report(place, "names no file; leave it out where the variant needs all")
    for i, role in enumerate(found):
        if role is not None and role in found[:i]:
            report(f"{place}[{i}]", f"{role!r} is listed twice")
        elif role is not None and known is not None and role not in known:
            report(f"{place}[{i}]", f"no file has the role {role!r}; {hint(role, known)}")


def roles_of(files: Sequence[Table | None]) -> frozenset[str] | None:
    """The roles there are; None where a file's own mistake hides its role, so that no second one is made of it."""
    roles = [each.get("role", "") if each else "" for each in files]
    right = all(ROLE.fullmatch(role) for role in roles) and len(set(roles)) == len(roles)
    return frozenset(roles) if right else None


RULES: tuple[Callable[[Table, Report], None], ...] = (identity, own_samples, words, access, files, variants)
"""Every rule but the layout's."""
