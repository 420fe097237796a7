"""Batches on an accelerator: lanes of queued work, decoding there, and the same augmentations as on the host."""
