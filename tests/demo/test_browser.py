"""The demo in a real browser, end to end. Needs gradio, selenium, Chromium and its driver; skipped without them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.support.paths import ROOT
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video

pytest.importorskip("gradio", reason="gradio is not installed (demo/requirements.txt)")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

DEMO = ROOT / "demo"
BROWSER_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_SECONDS = 90
DELETE_AFTER_SECONDS = 30


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("browser")
    write_small_folder(place / "model")
    for folder in ("gallery", "uploads", "profile"):
        (place / folder).mkdir()
    for index in range(3):
        write_video(place / "gallery" / f"video {index}.mp4", num_frames=50)
    (place / "gallery" / "broken.mp4").write_bytes(b"no video")
    return place


@pytest.fixture(scope="module")
def page(place):
    """The address of a demo that runs in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "TVTSV2_MODEL": str(place / "model"),
        "TVTSV2_GALLERY": str(place / "gallery"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(place / "uploads"),
        "TVTSV2_DELETE_AFTER": str(DELETE_AFTER_SECONDS),
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=DEMO, env=environment)
    address = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(address).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < end, "the demo did not start"
            time.sleep(0.5)
    yield address
    process.terminate()
    process.wait(30)


@pytest.fixture
def browser(place):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*BROWSER_OPTIONS, f"--user-data-dir={place / 'profile'}", "--window-size=1240,900"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait_for(browser, selector: str, count: int = 1):
    """The elements, as soon as there are as many."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        found = browser.find_elements("css selector", selector)
        if len(found) >= count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"the page never showed {count} of {selector}")


def test_a_visit(page, browser, place):
    browser.get(page)
    upload = wait_for(browser, "#clip input[type=file]")[0]
    upload.send_keys(str(place / "gallery" / "video 0.mp4"))
    wait_for(browser, "#clip video")
    texts = wait_for(browser, "#texts textarea")[0]
    texts.clear()
    texts.send_keys("a red star\n<b>a blue moon</b>")
    browser.find_element("id", "score").click()
    wait_for(browser, "#answer .times")
    answer = browser.find_element("id", "answer")
    assert "<b>a blue moon</b>" in answer.text, "texts must be shown, not run"
    assert len(browser.find_elements("css selector", "#answer .peak")) == 2

    tabs = {tab.text: tab for tab in browser.find_elements("css selector", "button[role=tab]")}
    tabs["Labels"].click()
    time.sleep(0.5)
    labels = wait_for(browser, "#labels textarea")[0]
    labels.clear()
    labels.send_keys("star\nmoon")
    browser.find_element("id", "classify").click()
    end = time.monotonic() + PATIENCE_SECONDS
    while "%" not in browser.find_element("id", "answer").text:
        assert time.monotonic() < end, "no labels appeared"
        time.sleep(0.2)

    tabs["Gallery"].click()
    time.sleep(0.5)
    assert len(wait_for(browser, "#hits video[poster]", count=3)) == 3, "the gallery is shown before any search"
    wait_for(browser, "#query textarea, #query input")[0].send_keys("a red star\n")
    end = time.monotonic() + PATIENCE_SECONDS
    while not all(note.text for note in browser.find_elements("css selector", "#hits .value")):
        assert time.monotonic() < end, "no scores appeared"
        time.sleep(0.2)

    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = {
        message["params"]["request"]["url"] for message in asked if message["method"] == "Network.requestWillBeSent"
    }
    foreign = [address for address in addresses if not address.startswith((page, "data:", "blob:", "chrome"))]
    assert not foreign, "the page must work without the network"


def test_what_cannot_be_used_is_told_and_uploads_are_deleted(page, browser, place):
    browser.get(page)
    broken, long, large = (place / f"{name}.mp4" for name in ("broken", "long", "large"))
    broken.write_bytes((place / "gallery" / "video 0.mp4").read_bytes()[:900])
    write_video(long, num_frames=130, fps=1)
    with large.open("wb") as file:
        file.truncate(51 * 2**20)
    for file, button, message in (
        (broken, True, "cannot be read"),
        (long, True, "longer than 120 s"),
        (large, False, "size"),
    ):
        browser.refresh()
        wait_for(browser, "#clip input[type=file]")[0].send_keys(str(file))
        if button:
            wait_for(browser, "#clip video")
            browser.find_element("id", "score").click()
        end = time.monotonic() + PATIENCE_SECONDS
        place_of_errors = "#answer .wrong" if button else ".toast-body"
        while message not in (said := wait_for(browser, place_of_errors)[0].text):  # it fades in
            assert time.monotonic() < end, f"{file.name}: {said!r}"
            time.sleep(0.2)
        assert str(place) not in said
        toasts = [toast.text for toast in browser.find_elements("css selector", ".toast-body")]
        # Gradio's preview says this at the upload, of whatever the browser cannot play.
        assert not (button and [toast for toast in toasts if "not playable" not in toast]), "one error, shown once"
    end = time.monotonic() + PATIENCE_SECONDS
    while left := [path for path in (place / "uploads").rglob("*") if path.is_file()]:
        assert time.monotonic() < end, f"not deleted: {left}"
        time.sleep(0.5)
