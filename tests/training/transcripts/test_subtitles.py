"""Subtitles as they are found in use: no word lost, none invented, and no file refused for one odd cue.

The right text of each is what other readers (ffmpeg, pysubs2, srt, webvtt-py) agree on.
"""

import pytest

from training.transcripts.subtitles import read_subtitles
from training.transcripts.words import spoken_words

ONE, TWO = "1\n00:00:01,000 --> 00:00:03,000\nhello there\n", "2\n00:00:04,000 --> 00:00:05,000\nbye now\n"


def said(text):
    words, _, _ = read_subtitles(text)
    return " ".join(word.word for word in spoken_words(words))


RIGHT = {
    # words that were lost
    "lines that end in CR CR LF": (f"{ONE}\n{TWO}".replace("\n", "\r\r\n"), "hello there bye now"),
    "lines that end in CR": (f"{ONE}\n{TWO}".replace("\n", "\r"), "hello there bye now"),
    "an empty line in a cue": (f"{ONE}\nand more\n\n{TWO}", "hello there and more bye now"),
    "line separators in a cue": (ONE.replace("hello", "hello\u2028\u2028\x0b\x1cmy"), "hello my there"),
    "a smaller sign": (ONE.replace("hello", "I <3 this and 5 > 4"), "I <3 this and 5 > 4 there"),
    "line breaks of SubStation": (ONE.replace("hello ", r"hello\N"), "hello there"),
    "paths": (
        "00:01.0 --> 00:02.0\nopen C:\\New, not c:\\Users\\home<i>d:\\Notes</i>:\\Nthere",
        r"open C:\New, not c:\Users\homed:\Notes: there",
    ),
    "tags that are none": (
        ONE.replace("hello", "vector<int> and <T>, <Font size=3>{B}not</font>"),
        "vector<int> and <T>, not there",
    ),
    "next lines": ("1\x8500:00:01,000 --> 00:00:02,000\x85hello\x85there\x85Ã\x85re Well\x85", "hello there Åre Well"),
    "an ellipsis of Windows": (ONE.replace("hello", "hello\x85 well\x85so"), "hello… well… so there"),
    "a break after a letter and a colon": (ONE.replace("hello", r"Q:\NWhat is c:\N"), "What is c: there"),
    "tags of HTML": (ONE.replace("hello", "<big>hello</big> CO<sub>2</sub> <h1>a</h1><hr/>"), "hello CO2 a there"),
    "numbers between other signs": (ONE.replace("hello", "hello\n♪ 7 ♪\n*5*\n"), "hello there"),
    "numbers in brackets": (
        ONE.replace("hello", "in [1995] 【3】 [1,000] we [2 people laugh] [SPEAKER_00]"),
        "in [1995] 【3】 [1,000] we there",
    ),
    "labels of one kind": (
        ONE.replace("hello there", "Tip: stir\nWarning: hot\nTip: taste\nTip: salt\nWARNING: HOT\nWARNING: COLD"),
        "Tip: stir Warning: hot Tip: taste Tip: salt WARNING: HOT WARNING: COLD",
    ),
    "a last line that is a number": (f"{ONE}\n{TWO.strip()}\n42", "hello there bye now 42"),
    "a number above the next cue's": (f"{ONE}42\n\n{TWO}", "hello there 42 bye now"),
    "a number in a file without numbers": (
        "00:01.0 --> 00:02.0\nhow many?\n42\n\n00:03.0 --> 00:04.0\nyes",
        "how many? 42 yes",
    ),
    # words that nobody said
    "no empty line between cues": (ONE + TWO, "hello there bye now"),
    "an empty line below the number": (f"{ONE}\n{TWO.replace('2', '2' + chr(10), 1)}", "hello there bye now"),
    "a description over two lines": (ONE.replace("hello", "[upbeat music\nplaying]"), "there"),
    "a description over two cues": (
        f"{ONE.replace('there', '[upbeat')}\n{TWO.replace('bye', 'music] bye')}",
        "hello bye now",
    ),
    "dashes of speakers": (ONE.replace("hello there", "- Hello.\n-Hi.\n– Oh, -5 it is"), "Hello. Hi. Oh, -5 it is"),
    "names of speakers": (
        ONE.replace(
            "hello there",
            "JOHN: Hello.\n- DR. O'NEIL:\nSPEAKER_00: hi\nSpeaker 2: 5:30 at NASA, in short: no\nSpeaker on: go",
        ),
        "Hello. hi 5:30 at NASA, in short: no Speaker on: go",
    ),
    "capitals that name nobody": (
        ONE.replace("hello there", "WARNING: HOT\nTODAY:\nlots"),
        "WARNING: HOT TODAY: lots",
    ),
    "names that a file has twice": (
        ONE.replace(
            "hello there",
            "John: Hi.\n<i>Old Mary:</i> JOHN: No!\nJohn:\nRemember: lots\n他说：好\n他说：是\nthen: mix\nthen: bake",
        )
        + TWO.replace("bye", "Old Mary: bye"),
        "Hi. JOHN: No! Remember: lots 他 说: 好 他 说: 是 then: mix then: bake bye now",
    ),
    "sounds and songs, and what only looks like them": (
        ONE.replace(
            "hello there", "*laughs* *really* good, (a pinch)\n(porte qui claque)\n♪ la la\nla ♪ add it (A lot.)\n♪ ok"
        )
        + TWO.replace("bye", "(whispers) bye *sobbing* (Gasp) f*** you ***"),
        "*really* good, (a pinch) add it (A lot.) ok bye f*** you now",
    ),
    "bare punctuation": (ONE.replace("there", "- : … ♪ & all"), "hello & all"),
    "zero-width characters": (ONE.replace("hello", "\u200b \ufeff he\u00adllo \u200e"), "hello there"),
    "a note and a style between cues": (
        "WEBVTT\n\nfirst\n00:01.000 --> 00:02.000\nhi\n\nNOTE not\nsaid\n\nSTYLE\n::cue {}\n\nsecond\n"
        "00:03.000 --> 00:04.000\nbye",
        "hi bye",
    ),
    "numbers that count down in a file without numbers": (
        "00:01.0 --> 00:02.0\n10\n\n00:02.0 --> 00:03.0\n9\n\n00:03.0 --> 00:04.0\ngo",
        "10 9 go",
    ),
    "an answer said three times": (
        "00:01.0 --> 00:02.0\nno\n\n00:02.0 --> 00:03.0\nno\n\n00:03.0 --> 00:04.0\nno",
        "no no no",
    ),
    "times of a machine translation": (
        f"{ONE}\n2\n00: 00: 04, 000 -> 00: 00: 05, 000\nbye\n\n"
        "3\n00\uff1a00\uff1a06\uff0c000 -- > 00\uff1a00\uff1a07\uff0c000\nnow",
        "hello there bye now",
    ),
    "arrows of an editor": (
        "\n".join(
            TWO.replace(":04,", f":0{number},").replace("-->", arrow).replace("now", str(number))
            for number, arrow in enumerate(("→", "–>", "--->", "-->>", "==>"))
        ),
        "bye 0 bye 1 bye 2 bye 3 bye 4",
    ),
    "a cue in two segments of a stream": (
        f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:0:0:0.0,MPEGTS:9\n\n{ONE}\nWEBVTT\n\n{ONE}\n{TWO}",
        "hello there bye now",
    ),
    "a cue drawn in two layers": (f"{ONE}\n{ONE.replace('hello', '<b>hello</b>')}\n{TWO}", "hello there bye now"),
    "line breaks of HTML and of Word": (ONE.replace("hello ", "hello<br>my<BR/>\x0b"), "hello my there"),
    "syllables with times": (
        "WEBVTT\n\n00:01.0 --> 00:03.0\n<00:01.1>hel<00:01.5><c>lo</c> <00:02.0>the<00:02.5>re\n<00:02.6>今<00:02.8>天",
        "hello there 今 天",
    ),
    "styles of MicroDVD": (ONE.replace("hello", "{i}hello{/i}"), "hello there"),
    "readings of characters": (ONE.replace("hello", "<ruby>漢<rt>kan</rt>字<rt>ji</ruby>"), "漢 字 there"),
    # whole files that were refused
    "a cue without length": (f"{ONE}\n{TWO.replace('05,000', '04,000')}", "hello there bye now"),
    "a cue that ends before it begins": (f"{ONE}\n{TWO.replace('05,000', '02,000')}", "hello there bye now"),
    "cues out of order": (f"{TWO}\n{ONE}", "hello there bye now"),
    "two cues at once": (f"{ONE}\n{ONE.replace('hello there', 'said Bob')}", "hello there said Bob"),
    "an arrow in the text": (ONE.replace("there", "File --> Open"), "hello File --> Open"),
    "times in the text": (
        f"{ONE}1:30 --> 2:30\n\n{TWO}from\n00:00:07,000 --> 00:00:08,000\n",
        "hello there 1:30 --> 2:30 bye now from 00:00:07,000 --> 00:00:08,000",
    ),
    "times in the text, below an empty line": (f"{ONE}\n1:30 --> 2:30\n\n{TWO}", "hello there 1:30 --> 2:30 bye now"),
    "times in the text of a file without numbers": (
        "00:01.0 --> 00:02.0\n1:30 --> 2:30\n\n00:03.0 --> 00:04.0\nyes",
        "1:30 --> 2:30 yes",
    ),
    "a number left out": (f"{ONE}\n{TWO}\n{TWO[2:].replace(':05', ':06')}", "hello there bye now bye now"),
    "digits left out": ("1\n0:0:1,5 --> 0:0:2\nhi", "hi"),
    "long fractions": ("WEBVTT\n\n0:00:01.234000 --> 0:00:02.500000\nhi there", "hi there"),
    "a second byte order mark": (f"\ufeff{ONE}\n\ufeff{TWO}", "hello there bye now"),
    "one cue with broken times": (f"{ONE}\n{TWO.replace('00:00:05,000', 'soon')}", "hello there"),
    "a header that is missing": ("00:01.000 --> 00:02.000 line:0\n<v Ann>hi", "hi"),
    # another file's letters
    "a mistaken encoding": (ONE.replace("there", "sÃ© cafÃ© â€“ naÃ¯ve"), "hello sé café naïve"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_text(name):
    text, right = RIGHT[name]
    assert said(text) == right


def test_cues_with_impossible_times_are_counted():
    _, _, num_broken = read_subtitles(f"{ONE}\n{TWO.replace('00:00:05,000', 'soon')}")
    assert num_broken == 1


def test_fractions_of_any_length_are_fractions():
    words, is_spread, _ = read_subtitles("0:00:01.25 --> 0:00:02\nhi\n\n0:00:03.123456 --> 0:00:04.0\nthere")
    assert [word.time for word in words] == [1.25, 3.123] and is_spread


def test_cues_at_once_share_their_time():
    words, _, _ = read_subtitles("00:01.0 --> 00:03.0\nab cd\n\n00:01.0 --> 00:05.0\nef gh")
    assert [word.time for word in words] == [1.0, 2.0, 3.0, 4.0]


def test_a_word_of_syllables_begins_with_the_first_one():
    words, _, _ = read_subtitles("00:01.0 --> 00:03.0\n<00:01.1>hel<00:01.5>lo<00:02.0> you")
    assert [(word.word, word.time) for word in words] == [("hello", 1.1), ("you", 2.0)]


def test_an_end_that_means_the_end_of_the_video_spreads_no_words():
    words, _, _ = read_subtitles(f"{ONE}\n{TWO.replace('00:00:05', '99:59:59')}")
    assert [word.time for word in words] == [1.0, 2.0, 4.0, 4.4]


def test_word_times_on_one_line_are_no_cue():
    """pysubs2 takes a line of two times for the times of a cue."""
    line = "JOHN: hi<00:00:00.320><c> NASA:</c><00:00:00.880><c> everyone</c>"  # only the first is a speaker
    words, is_spread, _ = read_subtitles(f"WEBVTT\n\n00:00:00.080 --> 00:00:02.190\n{line}")
    assert [(word.word, word.time) for word in words] == [("hi", 0.08), ("NASA:", 0.32), ("everyone", 0.88)]
    assert not is_spread
