"""The static page in headless Chromium, offline. Needs `npm install` in demo/browser, selenium and Chromium."""

import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from tests.support.paths import ROOT
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main

PAGE = ROOT / "demo" / "browser"
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
if not (PAGE / "node_modules" / "onnxruntime-web").is_dir():
    pytest.skip("npm install was not run in demo/browser", allow_module_level=True)

NUM_CLIPS = 100
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")

EMBED = """
const [name, text, count, done] = arguments;
(async () => {
  const { loadModel, readFrames, search } = await import("/tvtsv2.js");
  const model = await loadModel("/model");
  const frames = await readFrames(await (await fetch(`/${name}`)).blob(), count);
  return {
    frames: frames.map(({ data }) => Array.from(data)),
    video: Array.from(await model.embedFrames(frames)),
    text: Array.from(await model.embedText(text)),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  };
})().then(done, (error) => done({ error: String(error.stack) }));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with an exported model, a video and clips to search."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("index.html", "tvtsv2.js", "node_modules"):
        (folder / name).symlink_to(PAGE / name)
    write_small_folder(folder / "small")
    assert main(["export", str(folder / "small"), str(folder / "model")]) == 0
    # Tokenizers in JavaScript have no WordLevel; a vocabulary of whole words makes WordPiece the same.
    tokenizer = json.loads((folder / "model" / "tokenizer.json").read_text())
    tokenizer["model"] |= {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    (folder / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_video(
        folder / "video.webm", codec="libvpx", num_frames=48, height=50, width=70, container_options={"live": "0"}
    )
    embeddings = np.random.default_rng(0).normal(size=(NUM_CLIPS, 20))
    clips = [{"name": f"clip {index}", "embedding": row} for index, row in enumerate(embeddings.tolist())]
    (folder / "model" / "clips.json").write_text(json.dumps(clips))
    return folder


@pytest.fixture(scope="module")
def browser(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in (*OPTIONS, f"--user-data-dir={site / 'profile'}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    driver.get(f"http://127.0.0.1:{server.server_port}/index.html")
    yield driver
    driver.quit()
    server.shutdown()


def cosines(clips: list[dict], embedding: np.ndarray) -> np.ndarray:
    rows = np.array([clip["embedding"] for clip in clips])
    return rows @ embedding / np.linalg.norm(rows, axis=1) / np.linalg.norm(embedding)


@torch.no_grad()
def test_embeddings_are_those_of_pytorch(site, browser):
    found = browser.execute_async_script(EMBED, "video.webm", "red star", 4)
    assert "error" not in found, found["error"]
    model = TVTSv2Model.from_pretrained(site / "small").eval()
    processor = TVTSv2Processor.from_pretrained(site / "small")
    frames = np.array(found["frames"], np.uint8).reshape(4, 50, 70, 4)[..., :3]
    inputs = processor(videos=frames, text="red star", do_sample_frames=False, return_tensors="pt")
    for actual, wanted in (
        (found["video"], model.get_video_features(inputs["pixel_values_videos"])),
        (found["text"], model.get_text_features(inputs["input_ids"])),
    ):
        difference = (torch.tensor(actual) - wanted.pooler_output[0]).abs().max() / wanted.pooler_output.norm()
        assert difference <= 1e-3
    # The browser's frames are near those of this project's reader, which takes the same ones of this file.
    ((read, _),) = processor.video_processor.read_frames(str(site / "video.webm"))
    again = processor(videos=frames, do_sample_frames=False, do_normalize=False, do_rescale=False, return_tensors="pt")
    apart = again["pixel_values_videos"][0].movedim(1, -1) - read
    assert apart.abs().float().mean() < 4
    assert all(name.startswith(browser.current_url.rsplit("/", 1)[0]) for name in found["loaded"])


def test_the_page_searches_clips_by_text(site, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    status = browser.find_element(By.ID, "status")
    WebDriverWait(browser, 120).until(lambda _: status.text == "Ready.")
    browser.find_element(By.ID, "text").send_keys("red star", Keys.ENTER)
    WebDriverWait(browser, 60).until(lambda _: "100 clips searched" in status.text)
    shown = [item.text.split(" ", 1) for item in browser.find_elements(By.CSS_SELECTOR, "#results li")]
    model = TVTSv2Model.from_pretrained(site / "small").eval()
    ids = TVTSv2Processor.from_pretrained(site / "small")(text="red star", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        embedding = model.get_text_features(ids).pooler_output[0].numpy()
    wanted = cosines(json.loads((site / "model" / "clips.json").read_text()), embedding)
    order = np.argsort(-wanted)[:10]
    assert [name for _, name in shown] == [f"clip {index}" for index in order]
    assert np.allclose([float(cosine) for cosine, _ in shown], wanted[order], atol=2e-3)
    browser.find_element(By.ID, "file").send_keys(str(site / "video.webm"))
    WebDriverWait(browser, 60).until(lambda _: status.text.startswith("100 clips searched"))
