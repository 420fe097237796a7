"""Shards, order and decoding composed into loaders: `streaming.StreamingLoader`, `opening.open_dataset`."""
