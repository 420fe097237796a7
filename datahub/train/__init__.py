"""Reference training on top of the loader. Nothing else needs this room."""
