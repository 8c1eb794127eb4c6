"""torchcodec where it can decode videos: its wheels bring no FFmpeg, and without one they import all the same."""

import pytest


def torchcodec_decoders():
    """Return `torchcodec.decoders`, or skip the test."""
    torchcodec = pytest.importorskip("torchcodec")
    if torchcodec.ffmpeg_major_version is None:
        pytest.skip("torchcodec finds no FFmpeg on this machine")
    return torchcodec.decoders
