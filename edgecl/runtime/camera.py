"""Frames from a camera: OpenCV where it is installed, else rpicam-vid of Raspberry Pi OS."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecl.card import Card
from edgecl.runtime.frames import Frame, as_input
from edgecl.types import ConfigError, DataError

RPICAM = "rpicam-vid"
WIDTH, HEIGHT = 640, 480  # what a camera is asked for


def frames(card: Card, which: str = "") -> Iterator[Frame]:
    """Pictures of camera number `which` (the first if empty), until it ends or the caller stops.

    Raises ConfigError where there is neither OpenCV nor rpicam-vid, DataError where the camera gives no picture.
    """
    if which and not which.isdigit():
        raise ConfigError(f"--input camera:{which}: a camera is named by its number, such as camera:0")
    try:
        import cv2
    except ImportError:
        if shutil.which(RPICAM) is None:
            raise ConfigError(
                f'--input camera needs OpenCV (pip install "edgecl[camera]") or {RPICAM} of Raspberry Pi OS'
            ) from None
        return _rpicam(card, int(which or 0))
    return _opencv(card, cv2, int(which or 0))


def _opencv(card: Card, cv2: Any, number: int) -> Iterator[Frame]:
    camera = cv2.VideoCapture(number)
    try:
        count, (good, picture) = 0, camera.read()
        if not good:
            raise DataError(f"camera {number}: gives no picture")
        while good:
            count += 1
            yield Frame(f"camera {number} #{count}", as_input(card, np.ascontiguousarray(picture[:, :, ::-1])))  # BGR
            good, picture = camera.read()
    finally:
        camera.release()


def _rpicam(card: Card, number: int) -> Iterator[Frame]:
    """Raw YUV 4:2:0 as rpicam-vid writes it; its first plane is the picture in grey, the others are its colours."""
    size = ["--width", str(WIDTH), "--height", str(HEIGHT), "--camera", str(number)]
    command = [RPICAM, "--nopreview", "--timeout", "0", "--codec", "yuv420", *size, "--output", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            assert child.stdout is not None
            count, length = 0, WIDTH * HEIGHT * 3 // 2
            while len(data := child.stdout.read(length)) == length:
                count += 1
                yield Frame(f"camera {number} #{count}", as_input(card, rgb(np.frombuffer(data, np.uint8))))
            if not count:
                raise DataError(f"camera {number}: {RPICAM} gives no picture")
        finally:
            child.terminate()


def rgb(yuv: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [H, W, 3] from planes Y [H, W], U and V [H / 2, W / 2], full range (ITU-R BT.601)."""
    area = WIDTH * HEIGHT
    y = yuv[:area].reshape(HEIGHT, WIDTH).astype(np.float32)
    u, v = (
        np.repeat(np.repeat(plane.reshape(HEIGHT // 2, WIDTH // 2).astype(np.float32) - 128, 2, 0), 2, 1)
        for plane in (yuv[area : area * 5 // 4], yuv[area * 5 // 4 :])
    )
    colours = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], 2)
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return pixels
