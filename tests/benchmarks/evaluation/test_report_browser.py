"""Reports in a real browser: they show everything and ask for nothing. Needs selenium, Chromium and its driver."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation.embeddings.sources import VideoEmbeddings
from benchmarks.evaluation.protocols.recognition import judge
from benchmarks.evaluation.protocols.retrieval import RetrievalResult, rank_both_ways
from benchmarks.evaluation.report import NUM_HARDEST, write_report
from tests.support.video_files import write_video

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

NUM_VIDEOS = 20
CLASSES = ("brush hair", "<b>wave</b>", "jüggle & jump", "sit")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.add_argument("--window-size=1240,900")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def videos(tmp_path):
    """Embeddings of videos, of which one has no file."""
    rows = np.random.default_rng(0).normal(size=(NUM_VIDEOS, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = tuple(f"clip {number}" for number in range(NUM_VIDEOS))
    write_video(tmp_path / "clip.mp4", num_frames=4)
    return VideoEmbeddings(names, rows, [], {}, dict.fromkeys(names[1:], tmp_path / "clip.mp4"))


def make_record(protocol: str, metrics: dict, chance: dict, **more) -> dict:
    counts = {"in_annotations": NUM_VIDEOS, "expected": NUM_VIDEOS, "found": NUM_VIDEOS, "broken": 0}
    return {
        "protocol": protocol,
        "data": "table",
        "model": {"name": "mödel", "family": "tvtsv2", "weight_hash": "0" * 64},
        "videos": {"test": {**counts, "evaluated": NUM_VIDEOS}},
        "state": "complete",
        "allow_missing": False,
        "metrics": metrics,
        "chance": chance,
        "split_checksums": {"test": "1" * 64},
        **dict.fromkeys(("command", "device", "finished"), "as it was"),
        **more,
    }


def retrieval_page(videos: VideoEmbeddings, folder: Path) -> Path:
    texts = videos.values + 0.5 * np.random.default_rng(1).normal(size=videos.values.shape).astype(np.float32)
    ranks = rank_both_ways(texts, videos.values, np.arange(NUM_VIDEOS))
    metrics = {name: {"R@1": {"value": 0.5, "interval_95": [0.4, 0.6]}} for name in ranks}
    chance = {name: {"R@1": 0.05} for name in ranks}
    dual = {"temperature": 0.05, "note": "needs all queries", "metrics": metrics}
    names = [f"<script>alert({number})</script>" for number in range(NUM_VIDEOS)]
    result = RetrievalResult(metrics, chance, dual, videos, names, texts, np.arange(NUM_VIDEOS), ranks)
    write_report(folder / "retrieval.html", make_record("retrieval", metrics, chance, dual_softmax=dual), result)
    return folder / "retrieval.html"


def recognition_page(videos: VideoEmbeddings, folder: Path) -> Path:
    scores = np.random.default_rng(2).normal(size=(NUM_VIDEOS, len(CLASSES)))
    result = judge(scores, np.arange(NUM_VIDEOS) % len(CLASSES), videos, [CLASSES] * NUM_VIDEOS, 0)
    write_report(folder / "recognition.html", make_record("recognition", result.metrics, result.chance), result)
    return folder / "recognition.html"


@pytest.mark.parametrize(
    ("write_page", "num_charts", "wanted"),
    [
        (
            retrieval_page,
            2,
            ["Retrieval on table: mödel", "text to video, dual softmax", "chance", "5.0", "alert(3)"],
        ),
        (
            recognition_page,
            2,
            ["Recognition on table: mödel", "25.0", "Confusion", "<b>wave</b>", "jüggle & jump"],
        ),
    ],
)
def test_a_report_shows_everything_and_asks_for_nothing(browser, videos, tmp_path, write_page, num_charts, wanted):
    address = write_page(videos, tmp_path).as_uri()
    browser.get_log("performance")
    browser.get(address)
    text = browser.find_element("tag name", "body").text
    assert all(words in text for words in wanted)
    assert len(browser.find_elements("css selector", ".query")) == NUM_HARDEST
    # An image that could not be drawn has no width, and all of them are laid out within the window.
    script = "return [...document.images].map(i => [i.naturalWidth, i.className, i.getBoundingClientRect().right])"
    images = browser.execute_script(script)
    assert sum(name == "chart" for _, name, _ in images) == num_charts and len(images) > num_charts
    assert all(width > 0 and right <= 1240 for width, _, right in images)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # Without what the page holds itself, and what Chromium's new tab loaded before.
    assert [url for url in sent if not url.startswith(("data:", "chrome"))] == [address]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("write_page", [retrieval_page, recognition_page])
def test_a_report_fits_a_phone(browser, videos, tmp_path, write_page):
    page = write_page(videos, tmp_path).as_uri()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        browser.get(page)
        assert browser.execute_script("return window.innerWidth") == 375
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
