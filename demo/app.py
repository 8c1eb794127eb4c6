"""The page of the demo: `python demo/app.py`, see README.md beside it."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

# Before Gradio reads them: uploads get a folder of their own, and nothing is reported to anybody.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="tvtsv2-demo-")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from engine import MAX_MEGABYTES, MAX_SECONDS, Engine, InputError
from pictures import STYLE, draw_bars, draw_hits, draw_nothing_yet, draw_timeline

DELETE_AFTER_SECONDS = float(os.environ.get("TVTSV2_DELETE_AFTER", "240"))
SWEEP_EVERY_SECONDS = min(20.0, DELETE_AFTER_SECONDS / 4)
INTRO = """
# Videos and sentences in one space
TVTSv2 embeds both. Upload a video, say in words what may happen in it, and see how well each text fits, and when.
"""
LIMITS = f"Up to {MAX_MEGABYTES} MB and {MAX_SECONDS:.0f} s. Deleted within five minutes."
# Fonts of the visitor's own system: the page loads nothing from anywhere else.
THEME = gr.themes.Soft(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    block_radius="14px",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="*block_background_fill",
    block_label_background_fill_dark="*block_background_fill",
    block_label_text_color="*body_text_color",
    block_label_text_color_dark="*body_text_color",
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_text_color="*body_text_color",
    block_title_padding="0",
    input_border_width="1px",
    input_border_color="*border_color_primary",
    input_shadow="none",
)


def build_page(engine: Engine) -> gr.Blocks:
    """Returns the page; every handler turns a visitor's mistake into a message."""

    def score(video, texts):
        scored = _call(engine.score, video, texts)
        cosines = scored.whole.tolist()
        bars = draw_bars(
            "How well each text fits",
            "Cosine of the text with the whole video.",
            scored.texts,
            cosines,
            [f"{cosine:.2f}" for cosine in cosines],
        )
        return bars + draw_timeline(scored)

    def classify(video, labels, template):
        shares = _call(engine.classify, video, labels, template)
        return draw_bars(
            "Which label it is",
            "Probabilities over these labels alone: they sum up to 1 also where none fits.",
            list(shares),
            list(shares.values()),
            [f"{share:.0%}" for share in shares.values()],
        )

    def search(text):
        return draw_hits(_call(engine.search, text), _address_of)

    with gr.Blocks(title="TVTSv2", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRO, elem_classes="intro")
        with gr.Tab("Your video"), gr.Row(elem_classes="sides"):
            with gr.Column(min_width=0):
                video = gr.Video(label="Video", sources=["upload"], height=280, elem_id="clip")
                gr.Markdown(LIMITS, elem_classes="limits")
                with gr.Tab("Texts and timeline"):
                    texts = gr.Textbox(
                        label="Texts, one a line", lines=4, value="a red star\na blue circle", elem_id="texts"
                    )
                    score_button = gr.Button("Score", variant="primary", elem_id="score")
                with gr.Tab("Labels"):
                    labels = gr.Textbox(
                        label="Labels, one a line", lines=4, value="archery\njuggling balls", elem_id="labels"
                    )
                    template = gr.Textbox(label="Template, {} is the label", value="a person {}", elem_id="template")
                    classify_button = gr.Button("Classify", variant="primary", elem_id="classify")
            with gr.Column(min_width=0):
                answer = gr.HTML(draw_nothing_yet(), elem_id="answer", padding=False)
            score_button.click(score, [video, texts], answer, api_name="score")
            classify_button.click(classify, [video, labels, template], answer, api_name="classify")
        if engine.gallery:
            with gr.Tab("Gallery"):
                query = gr.Textbox(
                    label=f"Search {len(engine.gallery)} videos",
                    placeholder="a red star moves up, then press Enter",
                    elem_id="query",
                )
                hits = gr.HTML(elem_id="hits", padding=False)
                query.submit(search, query, hits, api_name="search")
    return page


def _call(function, *arguments):
    try:
        return function(*arguments)
    except InputError as error:
        raise gr.Error(str(error), title="That did not work", print_exception=False) from error


def _address_of(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def sweep(folder: Path) -> None:
    """Deletes every file in a folder that is old enough, uploads that broke off included; runs for ever."""
    while True:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and time.time() - path.stat().st_ctime > DELETE_AFTER_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue
        time.sleep(SWEEP_EVERY_SECONDS)


def serve(engine: Engine, **options):
    """Starts the page; `options` as for Gradio's `launch`, and what that returns."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    atexit.register(shutil.rmtree, uploads, ignore_errors=True)
    threading.Thread(target=sweep, args=(uploads,), daemon=True).start()
    return build_page(engine).launch(
        max_file_size=f"{MAX_MEGABYTES}mb",
        css=STYLE,
        theme=THEME,
        allowed_paths=[str(path) for path, _ in engine.gallery],
        footer_links=[],
        **options,
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an end like any other: uploads go with it
    model, gallery = os.environ.get("TVTSV2_MODEL", "outputs/pretrain"), os.environ.get("TVTSV2_GALLERY", "gallery")
    serve(Engine(model, gallery))


if __name__ == "__main__":
    main()
