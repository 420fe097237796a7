"""What of a video is known without decoding it: which container its bytes are in."""

from __future__ import annotations


def container(data: bytes | memoryview) -> str:
    """``mp4`` (or QuickTime), ``webm`` (or Matroska) or ``avi``. Raises ``ValueError`` for everything else.

    FFmpeg is handed these alone: among what else it opens are playlists that name other files and URLs.
    """
    head = bytes(data[:12])
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise ValueError("is no video that is read: MP4, QuickTime, WebM, Matroska or AVI" if head else "is empty")
