"""Videos with sound, and a speech model of random weights: what it hears says nothing, but it has all parts."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

RATE = 16000
TONE = 0.3 * np.sin(np.arange(RATE * 100) * 0.2).astype(np.float32)


def write_sound_video(path, sound, *, first_second=0.0, rate=RATE, left_out=()):
    """A video of one dark frame per second, with `sound` (float32 at `rate`) as both channels of its AAC track."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="stereo") if sound is not None else None
        for second in range(max(1, len(sound) // rate if sound is not None else 1)):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = second, Fraction(1, 1)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(sound) if sound is not None else 0, 1024):
            frame = av.AudioFrame.from_ndarray(np.tile(sound[start : start + 1024], (2, 1)), "fltp", "stereo")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + round(first_second * rate)
            if not any(first <= start / rate < end for first, end in left_out):
                container.mux(audio.encode(frame))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def write_tiny_whisper(folder: Path) -> Path:
    """Writes a Whisper of random weights, the same every time, with a tokenizer of bytes; returns `folder`."""
    vocabulary = {token: index for index, token in enumerate(sorted(ByteLevel.alphabet()))}
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    special += [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
    tokenizer = WhisperTokenizer(
        vocab=vocabulary, merges=[], unk_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:10]})
    tokenizer.add_tokens(special[10:])
    tokenizer.save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    end = ids["<|endoftext|>"]
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": 8, "max_target_positions": 40}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    tokens = {"decoder_start_token_id": ids["<|startoftranscript|>"], "bos_token_id": end, "eos_token_id": end}
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokenizer), pad_token_id=end, **sizes, **heads, **tokens)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **tokens,
        pad_token_id=end,
        max_length=30,
        is_multilingual=True,
        lang_to_id={token: ids[token] for token in ("<|en|>", "<|de|>")},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        alignment_heads=[[0, 0]],
        return_timestamps=True,
        suppress_tokens=[ids[token] for token in special[:9]],
        begin_suppress_tokens=[end],
    )
    model.save_pretrained(folder)
    return folder
