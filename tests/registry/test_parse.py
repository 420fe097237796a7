"""Manifests: what is read, and that every problem of a broken one is reported, each with its place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from datahub.core.errors import ManifestInvalid, NotReadable
from datahub.registry import Manifest, from_dict, load, parse, to_dict
from tests.registry.sample import MD5, SHA256, TEXT, table


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ManifestInvalid) as caught:
        parse(text, "some.toml")
    assert caught.value.path == "some.toml"
    return dict(caught.value.problems)


def spoiled(path: str, value: Any) -> dict[str, str]:
    """The problems of the sample with one value changed; ``path`` is dotted, numbers are indexes, ``-`` removes."""
    facts = table()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    where: Any = facts
    for part in parents:
        where = where[part] if isinstance(part, int) else where.setdefault(part, {})
    if value == "-":
        del where[last]
    else:
        where[last] = value
    with pytest.raises(ManifestInvalid) as caught:
        from_dict(facts)
    return dict(caught.value.problems)


def test_a_right_manifest_is_read_whole() -> None:
    manifest = parse(TEXT, "digits.toml")
    assert (manifest.name, manifest.version, manifest.schema) == ("digits", "1.0", 1)
    assert manifest.splits == {"train": 60000, "test": 10000}
    assert [str(digest) for digest in manifest.file("images").digests()] == [f"sha256:{SHA256}", f"md5:{MD5}"]
    assert manifest.file("labels").digests() == ()
    assert manifest.splits_of("few") == {"train": 100} and manifest.classes_of("few") == ["zero"]
    assert manifest.layout_of("few").options["splits"] == {
        "train": {"images": "images", "labels": "labels", "count": 100}
    }
    assert manifest.digest.startswith("sha256:")


def test_five_mistakes_are_five_problems_with_their_places() -> None:
    text = TEXT.replace('name = "digits"', 'name = "My Digits"')
    text = text.replace("test = 10_000", 'test = "ten"')
    text = text.replace(f'sha256 = "{SHA256}"', 'sha256 = "sha256"')
    text = text.replace('role = "labels"\nmirrors', 'role = "labels"\nmirors')
    text = text.replace('train = { images = "images", labels', 'train = { images = "pictures", labels', 1)
    found = problems(text)
    assert set(found) == {
        "name",
        "splits.test",
        "files[0].sha256",
        "files[1].mirors",
        "layout.options.splits.train.images",
    }
    assert "did you mean mirrors?" in found["files[1].mirors"]
    assert "'sha256' is not a digest" in found["files[0].sha256"]
    assert found["splits.test"] == "must be a whole number, not 'ten'"
    assert "no file has the role 'pictures'" in found["layout.options.splits.train.images"]


def test_the_message_names_the_file_and_every_problem_on_one_line() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(TEXT.replace('title = "Digits"\n', "").replace("MIT", ""), "/tmp/digits.toml")
    assert str(caught.value).startswith("/tmp/digits.toml has 2 problems: title: is missing; licence.id: is empty")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("path", "value", "place", "says"),
    [
        ("name", "-", "name", "is missing"),
        ("name", 3, "name", "must be text, not 3"),
        ("name", "", "name", "is empty"),
        ("name", "digits@2", "name", "is not a name"),
        ("version", "1/0", "version", "is not a version"),
        ("task", "Classification!", "task", "words joined by"),
        ("title", "  ", "title", "is empty"),
        ("licence", "MIT", "licence", "must be a table, not 'MIT'"),
        ("license", {}, "license", "did you mean licence?"),
        ("licence.id", "", "licence.id", "leave it out"),
        ("licence.url", "example.org", "licence.url", "begin with a scheme"),
        ("homepage", "http://", "homepage", "names no host"),
        ("schema", 0, "schema", "must be from 1"),
        ("schema", True, "schema", "must be a whole number, not true"),
        ("digest", "sha256:" + SHA256, "digest", "is not known here"),
        ("tags", ["a", "a"], "tags[1]", "is already tags[0]"),
        ("tags", "gray", "tags", "must be a list"),
        ("classes", ["a", "b", "a"], "classes[2]", "'a' is already classes[0]"),
        ("classes", ["a", ""], "classes[1]", "is empty"),
        ("classes", ["a", "b\nc"], "classes[1]", "is not a name"),
        ("classes", ["a", 1], "classes[1]", "must be text, not 1"),
        ("splits", {}, "splits", "names no split"),
        ("splits.Test", 5, "splits.Test", "is not a split name"),
        ("splits.train", 0, "splits.train", "from 1 to"),
        ("splits.train", -5, "splits.train", "from 1 to"),
        ("splits.train", 1.5, "splits.train", "must be a whole number, not 1.5"),
        ("splits.train", 10**9, "splits.train", "from 1 to"),
        ("splits.extra", 5, "layout.options.splits.extra", "is missing"),
        ("tried.how", "often", "tried.how", "must be one of 'published files', 'miniature', 'never'"),
        ("access.kind", "closed", "access.kind", "must be one of"),
        ("access.instructions", "-", "access.instructions", "say what a person must do"),
        ("access.instructions", " ", "access.instructions", "is empty"),
        ("access.consent", "yes", "access.consent", "must be true or false"),
        ("files", "-", "files", "reads published files"),
        ("files", [], "files", "reads published files"),
        ("files.0", "images.gz", "files[0]", "must be a table"),
        ("files.0.role", "-", "files[0].role", "is missing"),
        ("files.0.role", "Images!", "files[0].role", "is not a role"),
        ("files.1.role", "images", "files[1].role", "'images' is already that of files[0]"),
        ("files.1.filename", "IMAGES.gz", "files[1].filename", "is already that of files[0]"),
        ("files.0.filename", "../images.gz", "files[0].filename", "plain file name"),
        ("files.0.filename", "..", "files[0].filename", "plain file name"),
        ("files.0.filename", "/etc/passwd", "files[0].filename", "plain file name"),
        ("files.0.filename", "a\\b", "files[0].filename", "plain file name"),
        ("files.0.filename", "c:images.gz", "files[0].filename", "plain file name"),
        ("files.0.filename", "images.gz.part", "files[0].filename", "download in progress"),
        ("files.0.filename", "a\0b", "files[0].filename", "printable"),
        ("files.0.filename", "é" * 101, "files[0].filename", "at most 200 bytes"),
        ("files.0.filename", "", "files[0].filename", "is empty"),
        ("files.0.bytes", 0, "files[0].bytes", "more than 0"),
        ("files.0.bytes", "9 MB", "files[0].bytes", "must be a whole number"),
        ("files.0.md5", "md5", "files[0].md5", "write 32 lower-case hex digits"),
        ("files.0.md5", MD5.upper(), "files[0].md5", "lower-case"),
        ("files.0.sha256", MD5, "files[0].sha256", "write 64"),
        ("files.0.sha256", "", "files[0].sha256", "is not a digest"),
        ("files.0.mirrors", ["https://a.org/x", "https://a.org/x"], "files[0].mirrors[1]", "listed twice"),
        ("files.0.mirrors", ["a.org/x"], "files[0].mirrors[0]", "begin with a scheme"),
        ("files.0.mirrors", ["https://me:secret@a.org/x"], "files[0].mirrors[0]", "holds credentials"),
        ("files.0.mirrors", ["https:///x"], "files[0].mirrors[0]", "names no host"),
        ("files.0.mirrors", ["https://[x/"], "files[0].mirrors[0]", "is not a URL"),
        ("files.0.mirrors", ["https://a.org:port/"], "files[0].mirrors[0]", "is not a URL"),
        ("files.0.mirrors", ["https://a.org/a b"], "files[0].mirrors[0]", "spaces"),
        ("files.0.mirrors", "https://a.org/x", "files[0].mirrors", "must be a list"),
        ("layout", "-", "layout", "is missing"),
        ("layout.kind", "idxx", "layout.kind", "did you mean idx?"),
        ("layout.kind", "shapes", "files", "makes its samples"),
        ("layout.options", {}, "layout.options.splits", "is missing"),
        ("layout.options.splits", 3, "layout.options.splits", "must be a table"),
        ("layout.options.splits.train", "images", "layout.options.splits.train", "must be a table"),
        ("layout.options.splits.train.labels", "-", "layout.options.splits.train.labels", "is missing"),
        ("layout.options.splits.train.labels", 7, "layout.options.splits.train.labels", "must be the role"),
        ("layout.options.splits.tset", {}, "layout.options.splits.tset", "did you mean test?"),
        ("layout.options.seed", float("nan"), "layout.options.seed", "finite"),
        ("layout.options.seed", 1 << 70, "layout.options.seed", "too large"),
        ("layout.options.when", object(), "layout.options.when", "not an object"),
        ("variants", {}, "variants", "names no variant"),
        ("variants.Bad Name", {}, "variants.'Bad Name'", "is not a variant"),
        ("variants.few.splits", {"train": 0}, "variants.few.splits.train", "from 1 to"),
        ("variants.few.classes", ["a", "a"], "variants.few.classes[1]", "is already"),
        ("variants.few.split", {}, "variants.few.split", "did you mean splits?"),
        ("variants.few.layout.splits.train.images", "x", "variants.few.layout.splits.train.images", "no file has"),
        ("variants.few.splits.val", 5, "variants.few.layout.splits.val", "is missing"),
        ("default_variant", "fewer", "default_variant", "did you mean few?"),
        ("variants", {"few": {}}, "default_variant", "is not a variant"),
    ],
)
def test_each_mistake_is_found_where_it_is(path: str, value: Any, place: str, says: str) -> None:
    found = spoiled(path, value)
    assert place in found, found
    assert says in found[place]
    assert len(found) <= 2, found  # one mistake may show in two places, a split's in its layout, but not in all


def test_a_password_in_a_mirror_is_not_repeated() -> None:
    assert "secret" not in str(spoiled("files.0.mirrors", ["https://me:secret@a.org/x"]))


def test_a_default_variant_must_be_named_when_published_is_not_there() -> None:
    facts = table()
    del facts["default_variant"], facts["variants"]["published"]
    with pytest.raises(ManifestInvalid, match="default_variant: is missing: name one of few"):
        from_dict(facts)


def test_a_cifar_layout_names_an_archive_that_exists() -> None:
    facts = table()
    facts["variants"] = {"published": {}}
    facts["layout"] = {"kind": "cifar", "options": {"splits": {"train": ["a/b"], "test": "a/c"}}}
    with pytest.raises(ManifestInvalid) as caught:
        from_dict(facts)
    assert [each.place for each in caught.value.problems] == ["layout.options.archive", "layout.options.splits.test"]
    facts["layout"]["options"].update(archive="archive", splits={"train": ["a/b"], "test": ["a/c"]})
    with pytest.raises(ManifestInvalid, match=r"layout\.options\.archive: no file has the role 'archive'"):
        from_dict(facts)
    facts["layout"]["options"]["archive"] = "images"
    assert from_dict(facts).layout.kind == "cifar"


def test_a_generator_needs_no_files() -> None:
    facts = {**table(), "layout": {"kind": "shapes", "options": {"seed": 3}}, "variants": {"published": {}}}
    del facts["files"]
    assert from_dict(facts).files == []


def test_a_newer_schema_is_refused_and_nothing_else_is_said() -> None:
    found = problems('schema = 2\nname = 3\nwhatever = "new"\n')
    assert list(found) == ["schema"]
    assert "upgrade datahub" in found["schema"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name = \n", "line 1, column 8"),
        ('a = 1\nb = "x\n', "line 2, column 7"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ("name", "end of document"),
        ("a = [", "end of document"),
        ("a = " + "1" * 5000, "the whole file"),
        ("a = " + "[" * 100_000, "the whole file"),
        ("[layout]\noptions.x = " + "[" * 40 + "]" * 40, "the whole file"),
    ],
)
def test_what_is_not_toml_is_one_problem_with_its_line(text: str, place: str) -> None:
    assert list(problems(text)) == [place]


def test_a_file_is_utf8_and_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load(good).name == "digits"
    latin = tmp_path / "latin.toml"
    latin.write_bytes('title = "é"'.encode("latin-1"))
    with pytest.raises(ManifestInvalid, match=r"latin\.toml has 1 problem: byte 9: is not UTF-8"):
        load(latin)
    with pytest.raises(NotReadable):
        load(tmp_path / "absent.toml")


def test_plain_data_and_back_is_the_same_manifest() -> None:
    manifest = parse(TEXT, "digits.toml")
    facts = to_dict(manifest)
    assert "digest" not in facts
    again = copy.deepcopy(facts)
    assert from_dict(facts) == manifest
    facts["splits"]["train"] = 1
    facts["layout"]["options"]["splits"]["train"]["start"] = 9
    assert to_dict(manifest) == again, "to_dict gives a copy"


def test_the_digest_is_of_what_the_dataset_is() -> None:
    def digest(**changes: Any) -> str:
        return from_dict({**table(), **changes}).digest

    base = digest()
    assert digest(splits=dict(reversed(table()["splits"].items()))) == base, "the order of a table's keys is nothing"
    assert digest(schema=1, description="") == base, "defaults may be written out"
    assert digest(tried={"how": "miniature"}) == base
    assert digest(access={}) == base
    moved = table()["files"]
    moved[0]["mirrors"] = []
    assert digest(files=moved) == base, "a moved mirror makes no other dataset"
    assert digest(title="Other") != base
    assert digest(classes=["one", "zero"]) != base
    other = table()["files"]
    other[0]["bytes"] += 1
    assert digest(files=other) != base


def test_the_sample_has_no_key_the_schema_lacks() -> None:
    assert set(table()) <= set(Manifest.__struct_fields__)
