"""Words of scripts with and without blanks, and what is not spoken."""

import pytest

from training.transcripts.words import (
    TimedWord,
    clean_text,
    count_words,
    join_words,
    split_words,
    spoken_words,
    words_in_window,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("so it  goes", ["so", "it", "goes"]),
        ("naïve été", ["naïve", "été"]),
        ("今天很好。", ["今", "天", "很", "好。"]),
        ("ラーメン", ["ラー", "メ", "ン"]),
        ("人々", ["人々"]),
        ("กินข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("GPT模型v2", ["GPT", "模", "型", "v2"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("", []),
    ],
)
def test_split(text, words):
    assert split_words(text) == words


def test_letters_of_scripts_without_blanks_are_no_words():
    counts = {"so it goes": 3, "今天很好。": 4, "สวัสดีครับ": 3, "กินข้าว OK": 3, "မင်္ဂလာပါ": 2, "": 0}
    assert {text: count_words(text) for text in counts} == counts


def test_joining_gives_the_text_again():
    for text in ("so it goes", "今天很好。我们", "안녕 하세요", "ラーメン"):
        assert join_words(split_words(text)) == text
    assert join_words(["很", "good", "好"]) == "很 good 好"


def test_windows():
    words = [TimedWord("a", 0.0), TimedWord("", 0.5), TimedWord("b", 1.0), TimedWord("c", 2.0)]
    assert words_in_window(words, 0.0, 2.0) == "a b" and words_in_window(words, 2.0, 9.0) == "c"
    assert words_in_window(words, 3.0, 9.0) == ""
    assert words_in_window([TimedWord("今", 0.0), TimedWord("天", 0.5)], 0, 1) == "今天"


def test_encodings_are_repaired_and_joiners_kept():
    assert clean_text("cafÃ© \u200bolé ♪ \ud800") == "café olé"
    assert clean_text("می‌خواهم") == "می‌خواهم"
    assert clean_text("<|0.00|> so it goes<|endoftext|>") == "so it goes"


def test_brackets_over_words():
    def left(text):
        return " ".join(word.word for word in spoken_words(TimedWord(word, 0.0) for word in text.split()))

    assert left("so [upbeat music playing] it goes") == "so it goes"
    assert left("[Music] hi [Applause]") == "hi"
    assert left("yes[laughs]no") == "yes no"
    assert left("a [ b") == "a b"
    assert left("an [unclosed bracket loses nothing") == "an [unclosed bracket loses nothing"
    passage = " ".join(f"w{number}" for number in range(20))
    assert left(f"[{passage}] end") == f"[{passage}] end"
    assert left("so (laughs) it (upbeat music), goes. (Applause)") == "so it goes."
    assert left("今天（笑）很好(笑) 【音乐】") == "今天 很好"
    assert left("yes. (door opens) So *sighs* salt ♪ it") == "yes. So salt it"
    # Where each word has its time, notes pair nothing: a third one would leave out speech.
    assert left("so (a man speaking Spanish) (school bell) (he clears his throat) it (cries) goes") == "so it goes"
    assert left("♪ hello everyone ♪ i love you ♪ bye") == "hello everyone i love you bye"
    for spoken in (
        "f(x) and word(s)",
        "salt (a pinch) and *more* salt (a lot)",
        "in (1995) we",
        "it (which is what we all know) goes",
        "(unclosed it goes",
        "add (a single pinch) to it",
        "it is (so to speak) *crystal* clear",
        "we (strictly speaking) slice (one bell pepper) and *explore* it",
        "the *yellow* one",
        "我们用（谷歌）找",
    ):
        assert left(spoken) == spoken


def test_songs_and_what_a_backtracking_pattern_would_never_finish():
    assert clean_text("so ♪ la la ♪ it goes ♪") == "so it goes"
    link = "https://soundcloud.com/artist/song-of-the-day"
    for spoken in (link, "a" * 30, "今" * 30, "a" * 100_000, " ".join("ab" * 50_000)):
        assert clean_text(f"♪ {spoken}") == spoken


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gbk", "cp1253", "shift-jis"])
def test_text_of_another_encoding_that_was_read_as_latin_1_is_refused(encoding):
    text = {"gbk": "今天天气很好", "shift-jis": "こんにちは、今日は晴れです", "cp1253": "καλημέρα κόσμε"}.get(
        encoding, "привет, это мир"
    )
    for read_as in ("latin-1", "cp1252"):
        misread = clean_text(text.encode(encoding).decode(read_as, errors="replace"))
        with pytest.raises(ValueError, match="another encoding was stored as Latin-1"):
            spoken_words([TimedWord(misread, 0.0)])
    rights = ("é é " * 9, "180° 90° £5 «Да» «нет» 45° £6 £7", "Öyküyü öptü, özgün öğün üçü üçüncü. Gül gülü.")
    for right in (text, "Ça, là où l'été à Évry", "Þá á ég að fá að sjá það", "Được rồi, cảm ơn cậu đã ở đây", *rights):
        assert spoken_words([TimedWord(word, 0.0) for word in right.split()])
