"""Encoded images to tensors: decoding into batches, and what is done to them before training."""
