"""H.264 whose pictures are coded as two fields, each in a packet of its own: no encoder in PyAV writes these (PAFF)."""

from fractions import Fraction
from pathlib import Path

import av

from tests.support.video_files import write_video

WIDTH_BLOCKS, FIELD_BLOCKS = 4, 2  # macroblocks of 16 pixels: frames of 64 x 64
FRAME_NUMBER_BITS = 4


class _Bits:
    def __init__(self):
        self.text = ""

    def put(self, num_bits: int, value: int) -> "_Bits":
        self.text += f"{value:0{num_bits}b}" if num_bits else ""
        return self

    def golomb(self, *values: int) -> "_Bits":
        for value in values:
            binary = f"{value + 1:b}"
            self.text += "0" * (len(binary) - 1) + binary
        return self

    def align(self) -> "_Bits":
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, header: int) -> bytes:
        """The bits as a unit with a stop bit and escapes."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        data, result = int(text, 2).to_bytes(len(text) // 8, "big"), bytearray([header])
        for byte in data:
            if byte <= 3 and result[-2:] == b"\0\0" and len(result) > 2:
                result.append(3)
            result.append(byte)
        return bytes(result)


def write_field_pictures(path: Path, num_frames: int = 40, *, one_packet: bool = False) -> Path:
    """Intra-only frames of flat blocks, each of two fields, in one packet or in a packet each."""
    sequence = _Bits().put(8, 77).put(8, 0).put(8, 30)
    # Identity, frame numbers, order count of type 2 (decoding order), references, no gaps, size, fields allowed
    sequence.golomb(0, FRAME_NUMBER_BITS - 4, 2, 1).put(1, 0).golomb(WIDTH_BLOCKS - 1, FIELD_BLOCKS - 1)
    sequence.put(2, 0).put(1, 1).put(1, 0).put(1, 0)  # fields, direct inference, no cropping, no VUI
    picture = _Bits().golomb(0, 0).put(2, 0).golomb(0, 0, 0).put(3, 0).golomb(0, 0, 0).put(3, 0)
    units = [sequence.unit(0x67), picture.unit(0x68)]
    fields = [_field(number, bottom) for number in range(num_frames) for bottom in (0, 1)]
    packets = [len(unit).to_bytes(4, "big") + unit for unit in fields]
    if one_packet:
        packets = [first + second for first, second in zip(packets[::2], packets[1::2], strict=True)]
    return _mux(path, units, packets)


def _field(number: int, bottom: int) -> bytes:
    is_idr = number == 0 and not bottom
    bits = _Bits().golomb(0, 7, 0).put(FRAME_NUMBER_BITS, number % 2**FRAME_NUMBER_BITS).put(1, 1).put(1, bottom)
    if is_idr:
        bits.golomb(0)
    bits.put(2 if is_idr else 1, 0).golomb(0)  # reference marking, slice_qp_delta
    for block in range(WIDTH_BLOCKS * FIELD_BLOCKS):
        bits.golomb(25).align()  # raw samples
        luma = 16 + (number * 5 + block * 9 + bottom * 40) % 200
        samples = bytes([luma]) * 256 + bytes([128]) * 128
        bits.put(8 * len(samples), int.from_bytes(samples, "big"))
    return bits.unit(0x65 if is_idr else 0x61)


def _mux(path: Path, units: list[bytes], packets: list[bytes]) -> Path:
    sequence, picture = units
    template = write_video(path.with_name("template.mp4"), num_frames=1, width=64, height=64)
    with av.open(str(template)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        box = b"\1" + sequence[1:4] + b"\xff\xe1" + len(sequence).to_bytes(2, "big") + sequence
        stream.codec_context.extradata = box + b"\1" + len(picture).to_bytes(2, "big") + picture
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 50), stream
            packet.is_keyframe = number == 0
            output.mux(packet)
    return path
