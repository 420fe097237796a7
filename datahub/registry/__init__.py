"""Manifests: what each dataset is as published. Parse, validate, find by name and version."""

from __future__ import annotations

from datahub.registry.catalog import Catalog, catalog
from datahub.registry.entries import Entry
from datahub.registry.parse import from_dict, load, parse, to_dict
from datahub.registry.schema import Access, File, Layout, Licence, Manifest, Tried, Variant

__all__ = [
    "Access",
    "Catalog",
    "Entry",
    "File",
    "Layout",
    "Licence",
    "Manifest",
    "Tried",
    "Variant",
    "catalog",
    "from_dict",
    "load",
    "parse",
    "to_dict",
]
