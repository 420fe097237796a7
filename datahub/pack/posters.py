"""The picture of a sample that is a video and was given none: the video's first frame."""

from __future__ import annotations

import tempfile

import cv2

from datahub.core.images import PIXEL_CAP
from datahub.store import video

QUALITY = 90
"""Of the JPEG: it shows what the video is, and the video beside it is what was published."""


def poster(data: bytes) -> bytes:
    """The first frame of a video as a JPEG, decoded by OpenCV's own FFmpeg. Raises ``ValueError``."""
    suffix = f".{video.container(data)}"
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:  # OpenCV 4.10 opens files alone
        file.write(data)
        file.flush()
        reader = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG)
        try:
            width, height = (reader.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            if width * height > PIXEL_CAP:
                raise ValueError(f"has frames of {width:.0f} x {height:.0f} pixels, more than {PIXEL_CAP}")
            there, frame = reader.read()
        except cv2.error as error:
            raise ValueError(f"cannot be decoded: {error}") from error
        finally:
            reader.release()
    if not there:
        raise ValueError("cannot be decoded: it has no first frame")
    _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
