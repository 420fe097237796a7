"""The manifest that ``datahub manifest new`` writes: whatever must be filled in is empty or 0, and `parse` says so."""

from __future__ import annotations

from datahub.core.errors import BadArgument
from datahub.core.refs import NAME

_TEXT = '''\
# How the dataset NAME was published. Fill in what is empty or 0, remove what does not apply, then run
#     datahub manifest check FILE
# and use it with --manifest FILE, or put it in a folder that DATAHUB_MANIFESTS names.

schema = 1
name = "NAME"                       # what people type: datahub fetch NAME
version = "1.0"                     # raise it when the published files change
title = ""                          # e.g. "Handwritten Digits"
description = ""
homepage = ""                       # https://...
citation = ""                       # BibTeX, in """three quotes""" if it has several lines
task = "image-classification"
image = ""                          # in words: "28x28x1 uint8"
tags = []
classes = []                        # names in label order: ["cat", "dog"]
# words = []                        # what each class is called, where classes are identifiers like WordNet's

[licence]
id = ""                             # SPDX identifier, e.g. "CC-BY-4.0"; remove it where the publisher states none
# url = "https://..."
# note = "as stated on the homepage"

[tried]
how = "never"                       # "published files", "miniature" or "never"

# For files that a program may not download, or terms that must be accepted:
# [access]
# kind = "manual"                   # "open", "manual" or "credentials"
# instructions = "Log in at ..., download ... and run datahub fetch NAME --from DIR"
# consent = true                    # ask for --accept-licence

[splits]                            # samples in each
train = 0
test = 0

# One [[files]] for each published file. Unknown sizes and digests are left out, never guessed.
[[files]]
filename = ""                       # as published: "train-images-idx3-ubyte.gz"
role = "train-images"               # what the layout calls it
# bytes = 9912422
# md5 = "..."
# sha256 = "..."
mirrors = [""]                      # tried in this order: http, https or any fsspec URL

[[files]]
filename = ""
role = "train-labels"
mirrors = [""]

[[files]]
filename = ""
role = "test-images"
mirrors = [""]

[[files]]
filename = ""
role = "test-labels"
mirrors = [""]

[layout]
kind = "idx"                        # the raw format: "idx", "cifar", "ilsvrc", "imagefolder" or "shapes"

[layout.options.splits]             # split -> the roles of its files
train = { images = "train-images", labels = "train-labels" }
test = { images = "test-images", labels = "test-labels" }

# For cifar, the pickled batches of one tar.gz:
# [layout.options]
# archive = "archive"               # a role
# meta = "folder/batches.meta"
# meta_key = "label_names"
# label_key = "labels"
# [layout.options.splits]
# train = ["folder/data_batch_1", "folder/data_batch_2"]
# test = ["folder/test_batch"]

# For imagefolder, an archive with a folder for each class:
# [layout.options.splits]
# train = { archive = "archive", folder = "folder/train" }
# test = { archive = "archive", folder = "folder/test" }
'''


def render(name: str) -> str:
    """The template for a dataset called ``name``; raises `BadArgument` where that is not a name."""
    if not NAME.fullmatch(name):
        raise BadArgument("name", name, "is not a dataset's name", "use lower-case letters, digits, '.', '_' and '-'")
    return _TEXT.replace("NAME", name)
