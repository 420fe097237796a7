"""Ragged decoded images to a batch in one pass: cropped, scaled, mirrored, looked up, laid out. See `apply`."""
