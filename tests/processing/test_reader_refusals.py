"""Files that are refused, damaged or hostile."""

import os
import random
import resource
import time
import zlib
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from processing import VideoLimits, VideoReadingError, interval_midpoint_indices, read_video
from processing.reader_encryption_tvtsv2 import check_side_data
from tests.support.conformance_videos import X265
from tests.support.odd_videos import write_odd_file
from tests.support.video_files import decode_all, draw_frame, write_video


def everything(metadata):
    return range(metadata.total_num_frames)


def twelve(metadata):
    return interval_midpoint_indices(metadata.total_num_frames, 12)


@pytest.fixture(scope="module")
def odd_file(tmp_path_factory):
    """Make each file once."""
    folder, made = tmp_path_factory.mktemp("odd"), {}

    def get(name):
        if name not in made:
            made[name] = write_odd_file(name, folder)
        return made[name]

    return get


@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "avi", "ogv"])
def test_truncated_files_are_errors_unless_asked_for(tmp_path, extension):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "ogv": "libvpx"}.get(extension, "libx264")
    options = {"movflags": "faststart"} if extension == "mp4" else {}
    whole = write_video(tmp_path / f"whole.{extension}", codec=codec, container_options=options)
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.9)])
    with pytest.raises(VideoReadingError, match=r"truncated \(\d+ frames decode"):
        read_video(path, everything)
    frames, metadata = read_video(path, everything, strict=False)
    images, _ = decode_all(path)
    assert metadata.is_truncated and 40 < len(frames) < 60 and (frames == np.stack(images)).all()


@pytest.mark.parametrize("codec, gop_size", [("libx264", 60), ("libx265", 1)])
def test_mostly_undecodable_files_are_errors_unless_asked_for(tmp_path, codec, gop_size):
    options = {"x265-params": f"{X265}:keyint=1"} if codec == "libx265" else None
    path = write_video(tmp_path / "video.mp4", codec=codec, num_frames=30, gop_size=gop_size, options=options)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in spans[1::3]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(VideoReadingError, match="damaged"):
        read_video(path, everything)
    assert read_video(path, everything, strict=False)[1].num_undecodable_packets > 3


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"max_frame_pixels": 64 * 96 - 1}, "max_frame_pixels=6143"),
        ({"max_frame_pixels": 100}, "max_frame_pixels=100"),
        ({"max_duration_seconds": 2.4}, "max_duration_seconds=2.4"),
        ({"max_decode_seconds": 1e-9}, "max_decode_seconds"),
        ({"max_memory_bytes": 12 * 64 * 96 * 3 - 1}, "max_memory_bytes"),
    ],
)
def test_each_limit_is_an_error_that_names_file_and_limit(odd_file, limits, message):
    path = odd_file("h264_mp4")
    with pytest.raises(VideoReadingError, match=message) as error:
        read_video(path, twelve, limits=VideoLimits(**limits))
    assert path.name in str(error.value)
    sufficient = VideoLimits(max_frame_pixels=64 * 96, max_duration_seconds=2.6, max_memory_bytes=12 * 64 * 96 * 3)
    read_video(path, twelve, limits=sufficient)


def test_limits_have_to_be_positive():
    with pytest.raises(ValueError, match="max_decode_seconds"):
        VideoLimits(max_decode_seconds=0)


def write_hostile(kind: str, folder: Path) -> Path:
    """A file that tries to make its reader open `secret.mp4` beside it, or to block it."""
    secret, path = write_video(folder / "secret.mp4", num_frames=5), folder / "hostile.mp4"
    scripts = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "dash": f'<?xml version="1.0"?><MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>',
        "subtitles": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        "empty": "",
    }
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "raw":
        write_video(path, container_format="h264")
    else:
        path.write_text(scripts[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["playlist", "concat", "sdp", "dash", "subtitles", "empty", "fifo", "directory", "raw"]
)
def test_hostile_files_are_refused_by_path_and_by_content(tmp_path, kind):
    path = write_hostile(kind, tmp_path)
    with pytest.raises(VideoReadingError, match=r"hostile\.mp4"):
        read_video(path, everything)
    if path.is_file():
        with pytest.raises(VideoReadingError):
            read_video(path.read_bytes(), everything)


@pytest.mark.parametrize(
    "source",
    [
        "https://127.0.0.1:9/x.mp4",
        "concat:secret.mp4",
        "file:secret.mp4",
        "subfile,,start,0,end,0,,:x",
        "/dev/zero",
        "no.mp4",
    ],
)
def test_names_that_are_no_regular_files_are_refused(tmp_path, monkeypatch, source):
    write_video(tmp_path / "secret.mp4", num_frames=5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoReadingError, match="Cannot read video"):
        read_video(source, everything)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="int"):
        read_video(3, everything)


def test_mutated_files_give_frames_or_one_kind_of_error(odd_file, tmp_path):
    generator = random.Random(0)
    names = ["h264_mp4", "vp8_hidden_frames", "mpeg2_ts", "avi_mpeg4_bframes", "hevc_open_gop"]
    outcomes = {"frames": 0, "error": 0}
    for trial in range(60):
        data = bytearray(odd_file(names[trial % len(names)]).read_bytes())
        for _ in range(generator.randint(1, 30)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        limits = VideoLimits(max_decode_seconds=20, max_frame_pixels=10**6, max_memory_bytes=10**8)
        try:
            frames, metadata = read_video(bytes(data), twelve, limits=limits, strict=trial % 2 == 0)
        except VideoReadingError:
            outcomes["error"] += 1
        else:
            assert len(frames) == min(12, metadata.total_num_frames) >= 1
            outcomes["frames"] += 1
    assert min(outcomes.values()) > 3, outcomes


def claim_samples(data: bytes, box: bytes, count: int, *, flags: bytes | None = None) -> bytes:
    """The file with another number of samples in a box: one size for all (`stsz`), or default sizes (`trun`)."""
    start = data.index(box) + 4
    change = bytearray(data)
    if box == b"stsz":
        change[start + 4 : start + 12] = (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    else:
        change[start + 1 : start + 8] = b"\0\0\0" + count.to_bytes(4, "big")
    return bytes(change)


@pytest.mark.parametrize("box, name", [(b"stsz", "h264_mp4"), (b"trun", "h264_fragmented")])
@pytest.mark.parametrize("count", [60_000_000, 2**32 - 1])
def test_a_small_file_that_claims_millions_of_samples_is_refused_before_it_costs(odd_file, tmp_path, box, name, count):
    path = tmp_path / "hostile.mp4"
    path.write_bytes(claim_samples(odd_file(name).read_bytes(), box, count))
    started, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for source in (path, path.read_bytes()):
        with pytest.raises(VideoReadingError, match=r"claims \d+ samples"):
            read_video(source, everything)
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 50_000  # KiB


def box(kind, content):
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def element(kind, *contents):
    content = b"".join(contents)
    return bytes.fromhex(kind) + (2**56 + len(content)).to_bytes(8, "big") + content


def matroska(num_tracks, *content):
    track = element("ae", element("d7", b"\1"), element("83", b"\1"), *content)
    return element("1a45dfa3", element("4282", b"webm")) + element("18538067", element("1654ae6b", track * num_tracks))


ALL_SCOPES = element("6d80", element("6240", element("5032", b"\3")))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"FLV\1\1\0\0\0\x09\0\0\0\0" + bytes(100) + b"\0\5times\n\x0f\xff\xff\xff", "a list of 268435455 numbers"),
        (matroska(201), "more than 200 tracks"),
        (matroska(9, ALL_SCOPES), "the settings of more than 8 tracks are compressed"),
        (box(b"ftyp", b"isom") + box(b"moov", 201 * box(b"trak", b"")), "more than 200 tracks"),
        (
            box(b"ftyp", b"isom") + box(b"moov", 4 * box(b"trak", box(b"stsz", bytes(7) + b"\1\0\0\0\x50"))),
            "claims 160 samples",
        ),
    ],
    ids=["flv list", "webm tracks", "webm settings", "mp4 tracks", "mp4 samples"],
)
def test_heads_that_claim_more_than_a_file_holds_are_refused_before_they_are_opened(monkeypatch, data, message):
    monkeypatch.setattr(av, "open", None)
    with pytest.raises(VideoReadingError, match=message):
        read_video(data, everything)


def test_side_data_that_has_no_name_is_unknown():
    class SideData:
        @property
        def data_type(self):
            return ()[40]  # as PyAV looks it up in its tuple of names

    assert check_side_data(SideData(), None) == "unknown"


def test_compressed_headers_are_looked_into(odd_file):
    data = odd_file("h264_mp4").read_bytes()
    start = data.index(b"moov") - 4
    header = claim_samples(data[start:], b"stsz", 60_000_000)
    packed = zlib.compress(header)
    inner = box(b"dcom", b"zlib") + box(b"cmvd", len(header).to_bytes(4, "big") + packed)
    with pytest.raises(VideoReadingError, match="claims 60000000 samples"):
        read_video(data[:start] + box(b"moov", box(b"cmov", inner)), everything)


@pytest.mark.parametrize(
    "head, name",
    [
        (b"DKIF\0\0 \0", "IVF"),
        (b"\6\x0e\x2b\x34\2\5\1\1", "MXF"),
        (b"RIFF\xff\0\0\0WAVEfmt ", "WAV audio"),
        (b"\0\0\0\1\x67\x64\0\x0a", "raw H.264 or HEVC"),
        (b"#EXTM3U\n", "an HLS playlist"),
        (b"hello, I am no video\n", "text"),
    ],
)
def test_a_format_that_is_not_allowed_is_named_with_those_that_are(tmp_path, head, name):
    path = tmp_path / "video.mp4"
    path.write_bytes(head + bytes(2000) * (name != "text"))
    with pytest.raises(
        VideoReadingError, match=rf"its format \({name}\) is not allowed; allowed are MP4, .* WebP images"
    ):
        read_video(path, everything)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_image_is_a_video_of_one_frame(tmp_path, suffix, as_bytes):
    image = draw_frame(3, 64, 96)
    path = tmp_path / f"image{suffix}"
    PIL.Image.fromarray(image).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    frames, metadata = read_video(path.read_bytes() if as_bytes else path, everything)
    assert frames.shape == (1, 64, 96, 3) and metadata.total_num_frames == 1
    assert np.abs(frames[0].astype(int) - image).mean() < (20 if suffix == ".jpg" else 0.01)


@pytest.mark.parametrize("has_text_first", [False, True])
def test_an_animated_png_has_all_of_its_frames(tmp_path, has_text_first):
    path, text = tmp_path / "video.png", PIL.PngImagePlugin.PngInfo()
    if has_text_first:
        text.add_text("comment", "long " * 1000)
    images = [draw_frame(index, 64, 96) for index in range(4)]
    first, *others = map(PIL.Image.fromarray, images)
    first.save(path, save_all=True, append_images=others, duration=100, pnginfo=text)
    frames, metadata = read_video(path, everything)
    assert (frames == np.stack(images)).all() and metadata.duration == pytest.approx(0.4)


def test_an_image_is_never_the_first_of_a_sequence_of_files(tmp_path):
    for index in range(3):
        PIL.Image.fromarray(draw_frame(index, 64, 96)).save(tmp_path / f"image{index}.png")
    assert read_video(tmp_path / "image0.png", everything)[1].total_num_frames == 1
    with pytest.raises(VideoReadingError):
        read_video(tmp_path / "image%d.png", everything)
