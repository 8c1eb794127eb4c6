"""The benchmark of early and late narration: what is spoken when, and how an alignment is scored."""

import json

import numpy as np

from benchmarks.speech_loop.pretraining import video_folder
from benchmarks.speech_loop.shifts import NUM_ABOUT_NOTHING, arrange, compare, write_transcripts
from training.narrated_shapes.corpus import Corpus
from training.narrated_shapes.scripts import CorpusConfig, plan_narrated_video


def test_sentences_are_moved_by_20_seconds_at_most_and_an_alignment_is_scored(tmp_path):
    events = [(4.0 * place, 4.0 * place + 4.0) for place in range(7)]
    sentences = arrange([f"A thing. It is number {place}!" for place in range(7)], events, np.random.default_rng(0))
    about_events = [sentence for sentence in sentences if sentence.shift is not None]
    assert len(about_events) == 7 and len(sentences) == 7 + NUM_ABOUT_NOTHING
    for sentence in about_events:
        place = int(sentence.text.split()[-1].removesuffix("."))
        middle = sentence.spoken_start + sentence.seconds / 2
        assert abs(sentence.shift) <= 20 and abs(middle + sentence.shift - (4 * place + 2)) < 1e-6
    starts, seconds = ([getattr(each, name) for each in sentences] for name in ("spoken_start", "seconds"))
    np.testing.assert_allclose(np.add(starts, seconds), [*starts[1:], 28.0])

    found = [{"time": round(each.spoken_start, 3), "shift": each.shift} for each in sentences]
    found[sentences.index(about_events[0])]["shift"] += 1.5
    found[sentences.index(about_events[1])]["shift"] = None
    (tmp_path / "sentences.jsonl").write_text(json.dumps({"video": "a.mp4", "sentences": found}) + "\n")
    scores = compare(tmp_path, {"a.mp4": sentences})
    assert scores["within_1_s"] == round(5 / 7, 4) and scores["left_out"] == round(1 / 7, 4)
    assert scores["within_1_s_of_those_kept"] == round(5 / 6, 4)
    assert scores["sentences_about_nothing"] == NUM_ABOUT_NOTHING and scores["left_out_of_those_about_nothing"] == 1


def test_a_transcript_says_of_its_own_video_what_is_seen_in_it(tmp_path):
    corpus = Corpus(tmp_path / "corpus", CorpusConfig(num_train_videos=2))
    video_folder(corpus).mkdir(parents=True)
    for index in (0, 1):
        (video_folder(corpus) / f"train{index:06d}.mp4").touch()
    arranged = write_transcripts(corpus, tmp_path / "transcripts")
    for index, (name, sentences) in enumerate(arranged.items()):
        words = json.loads((tmp_path / "transcripts" / f"{name}.json").read_text())["words"]
        assert " ".join(word["word"] for word in words) == " ".join(sentence.text for sentence in sentences)
        script = plan_narrated_video(corpus.config, "train", index)
        for event, told in zip(script.events, script.sentences, strict=True):
            text = " ".join(told.replace(".", "").replace("!", "").split()) + "."
            (sentence,) = [sentence for sentence in sentences if sentence.text == text]
            middle = sentence.spoken_start + sentence.seconds / 2 + sentence.shift
            assert abs(middle - (event.start_seconds + event.end_seconds) / 2) < 1e-6
