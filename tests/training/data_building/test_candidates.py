"""Which transcripts may be a video's own, and in which order they are tried."""

import pytest

from training.data_building.candidates import find_candidates, language_of

NAMES = ["talk.mp4", "sub/talk.mp4", "lecture.mp4", "lecture.part2.mp4", "film.mp4", "film.de.mp4", "clip.mp4"]


def candidates_of(folder, transcripts, names=NAMES, **options):
    for name in transcripts:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return {found.video: list(found.transcripts) for found in find_candidates(folder, names, folder, "", **options)}


@pytest.mark.parametrize(
    ("video", "transcripts", "right"),
    [
        ("talk.mp4", ["talk.srt"], ["talk.srt"]),
        ("talk.mp4", ["talk.mp4.json"], ["talk.mp4.json"]),
        ("talk.mp4", ["talk.en.vtt", "talk.live_chat.json", "talk.info.json"], ["talk.en.vtt"]),
        ("talk.mp4", ["talk.en-US.vtt", "talk.en.json3"], ["talk.en.json3", "talk.en-US.vtt"]),
        ("talk.mp4", ["talk.English.sdh.srt"], ["talk.English.sdh.srt"]),
        ("talk.mp4", ["talk.eng.forced.srt", "talk.ger.srt"], ["talk.ger.srt", "talk.eng.forced.srt"]),
        ("talk.mp4", ["talk.final.srt", "talk.v2.srt", "talks.srt", "talk.2.srt"], []),
        ("talk.mp4", ["talk.srt", "talk.de.json", "talk.vtt"], ["talk.vtt", "talk.srt", "talk.de.json"]),
        ("talk.mp4", ["._talk.srt", ".talk.srt"], []),
        ("sub/talk.mp4", ["talk.srt", "sub/talk.vtt"], ["sub/talk.vtt"]),
        ("lecture.mp4", ["lecture.part2.srt"], []),
        ("lecture.part2.mp4", ["lecture.part2.srt"], ["lecture.part2.srt"]),
        ("film.mp4", ["film.de.srt", "film.en.srt"], ["film.en.srt"]),  # the German one is film.de.mp4's
        ("film.de.mp4", ["film.de.srt", "film.en.srt"], ["film.de.srt"]),
        ("clip.mp4", ["clip.json", "clip.vtt"], ["clip.json", "clip.vtt"]),
    ],
)
def test_transcripts_of_a_video(tmp_path, video, transcripts, right):
    assert candidates_of(tmp_path, transcripts)[video] == right


def test_a_language_leaves_others_out_and_comes_first(tmp_path):
    files = ["talk.srt", "talk.de.srt", "talk.en.vtt", "talk.fr.json"]
    assert candidates_of(tmp_path, files, language="en")["talk.mp4"] == ["talk.en.vtt", "talk.srt"]
    assert candidates_of(tmp_path, files, language="ja")["talk.mp4"] == ["talk.srt"]


def test_accents_written_in_two_ways_are_one_name(tmp_path):
    assert candidates_of(tmp_path, ["cafe\u0301.srt"], ["caf\u00e9.mp4"]) == {"caf\u00e9.mp4": ["cafe\u0301.srt"]}


def test_the_signature_changes_with_every_file(tmp_path):
    def signature():
        return next(found.signature for found in find_candidates(tmp_path, ["talk.mp4"], tmp_path, ""))

    signatures = {signature()}
    for name in ("talk.mp4", "talk.srt", "talk.en.srt"):
        (tmp_path / name).write_text("x")
        signatures.add(signature())
    (tmp_path / "talk.en.srt").write_text("xy")
    assert len(signatures | {signature()}) == 5


@pytest.mark.parametrize(
    ("tag", "language"),
    [("en", "en"), ("pt-BR", "pt"), ("zh_Hans", "zh"), ("eng", "en"), ("ger", "de"), ("French", "fr"), ("yue", "yue"),
     ("part2", None), ("cut", None), ("live_chat", None), ("1", None), ("", None)],
)  # fmt: skip
def test_languages(tag, language):
    assert language_of(tag) == language
