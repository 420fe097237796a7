"""A manifest that is right in every way, for tests to spoil."""

from __future__ import annotations

from typing import Any

MD5 = "f68b3c2dcbeaaa9fbdd348bbdeb94873"
SHA256 = "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"

TEXT = f"""
name = "digits"
version = "1.0"
title = "Digits"
homepage = "https://example.org/digits"
task = "image-classification"
tags = ["gray"]
classes = ["zero", "one"]
licence = {{ id = "MIT", url = "https://example.org/licence" }}
tried = {{ how = "never" }}
default_variant = "published"

[access]
kind = "manual"
instructions = "Ask for the files."

[splits]
train = 60_000
test = 10_000

[[files]]
filename = "images.gz"
role = "images"
bytes = 9912422
md5 = "{MD5}"
sha256 = "{SHA256}"
mirrors = ["https://example.org/images.gz", "s3://bucket/images.gz"]

[[files]]
filename = "labels.gz"
role = "labels"
mirrors = ["http://example.org/labels.gz"]

[layout]
kind = "idx"
[layout.options.splits]
train = {{ images = "images", labels = "labels" }}
test = {{ images = "images", labels = "labels", start = 60_000, count = 10_000 }}

[variants.published]
[variants.few]
description = "The first hundred."
splits = {{ train = 100 }}
classes = ["zero"]
layout = {{ splits = {{ train = {{ images = "images", labels = "labels", count = 100 }} }} }}
"""


def table() -> dict[str, Any]:
    """The same as plain data, a fresh copy."""
    import tomllib

    return tomllib.loads(TEXT)
