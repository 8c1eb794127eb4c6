"""The page of the demo: `python demo/app.py`, see README.md beside it."""

import argparse
import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

# Gradio reads these at import: uploads get a folder of their own, and no usage is reported.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="tvtsv2-demo-")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from engine import MAX_MEGABYTES, MAX_SECONDS, Engine, InputError
from pictures import STYLE, draw_bars, draw_empty, draw_error, draw_gallery, draw_timeline

DELETE_AFTER_SECONDS = float(os.environ.get("TVTSV2_DELETE_AFTER", "240"))
SWEEP_EVERY_SECONDS = min(20.0, DELETE_AFTER_SECONDS / 4)
DESCRIPTION = (
    "Start the demo's page. The variables TVTSV2_MODEL and TVTSV2_GALLERY name model and videos, see README.md."
)
INTRO = """
# Videos and sentences in one space
TVTSv2 embeds both. Upload a video, describe what may happen in it, and see how well each text fits, and when.
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


# After an answer arrives: on a narrow screen it is below the button.
SCROLL_TO_ANSWER = "() => document.querySelector('#answer').scrollIntoView({behavior: 'smooth', block: 'nearest'})"
EXAMPLE_TEXTS = "a red star\na blue circle"


def build_page(engine: Engine) -> gr.Blocks:
    """Return the page; inputs that cannot be used are answered by a message in place of the result."""

    def score(video, texts):
        scored = engine.score(video, texts)
        cosines = scored.whole.tolist()
        bars = draw_bars(
            "How well each text fits",
            "Cosine of the text with the whole video; a full bar is 1.",
            scored.texts,
            cosines,
            [f"{cosine:.2f}" for cosine in cosines],
        )
        return bars + draw_timeline(scored)

    def classify(video, labels, template):
        shares = engine.classify(video, labels, template)
        return draw_bars(
            "Which label fits best",
            "Probabilities over these labels alone: they sum to 1 also where none fits.",
            list(shares),
            list(shares.values()),
            [f"{share:.0%}" for share in shares.values()],
        )

    def search(text):
        if not text.strip():
            return draw_gallery(engine.gallery, _address_of)
        videos, scores = zip(*engine.search(text), strict=True)
        return draw_gallery(list(videos), _address_of, list(scores))

    with gr.Blocks(title="TVTSv2", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRO, elem_classes="intro")
        with gr.Tab("Your video"), gr.Row(elem_classes="sides"):
            with gr.Column(min_width=0):
                video = gr.Video(label="Video", sources=["upload"], height=280, elem_id="clip")
                gr.Markdown(LIMITS, elem_classes="limits")
                if engine.gallery:
                    gr.Examples([str(engine.gallery[0].path)], video, label="Example", elem_id="example")
                with gr.Tab("Texts and timeline"):
                    texts = gr.Textbox(label="Texts, one per line", lines=4, value=EXAMPLE_TEXTS, elem_id="texts")
                    score_button = gr.Button("Score", variant="primary", elem_id="score")
                with gr.Tab("Labels"):
                    labels = gr.Textbox(label="Labels, one per line", lines=4, value=EXAMPLE_TEXTS, elem_id="labels")
                    template = gr.Textbox(label="Template, {} is the label", value="{}", elem_id="template")
                    classify_button = gr.Button("Classify", variant="primary", elem_id="classify")
            with gr.Column(min_width=0):
                answer = gr.HTML(draw_empty(), elem_id="answer", padding=False)
            for button, handler, inputs in (
                (score_button, score, [video, texts]),
                (classify_button, classify, [video, labels, template]),
            ):
                event = button.click(_with_errors_shown(handler), inputs, answer, api_name=handler.__name__)
                event.then(None, js=SCROLL_TO_ANSWER)
        if engine.gallery:
            with gr.Tab("Gallery"):
                query = gr.Textbox(
                    label=f"Search {len(engine.gallery)} videos",
                    placeholder="a red star moves up, then press Enter",
                    elem_id="query",
                )
                hits = gr.HTML(draw_gallery(engine.gallery, _address_of), elem_id="hits", padding=False)
                query.submit(_with_errors_shown(search), query, hits, api_name="search")
    return page


def _with_errors_shown(handler: Callable[..., str]) -> Callable[..., str]:
    """Return the handler, with a message of `InputError` as its result."""

    @functools.wraps(handler)
    def handle(*arguments):
        try:
            return handler(*arguments)
        except InputError as error:
            return draw_error(str(error))

    return handle


def _address_of(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def sweep(folder: Path) -> None:
    """Delete old files of a folder, interrupted uploads included, in an endless loop."""
    while True:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and time.time() - path.stat().st_ctime > DELETE_AFTER_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue
        time.sleep(SWEEP_EVERY_SECONDS)


def serve(engine: Engine, **options):
    """Start the page; options and result are those of Gradio's `launch`."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    atexit.register(shutil.rmtree, uploads, ignore_errors=True)
    threading.Thread(target=sweep, args=(uploads,), daemon=True).start()
    return build_page(engine).launch(
        max_file_size=f"{MAX_MEGABYTES}mb",
        css=STYLE,
        theme=THEME,
        allowed_paths=[str(video.path) for video in engine.gallery],
        footer_links=[],
        **options,
    )


def main() -> None:
    argparse.ArgumentParser(description=DESCRIPTION).parse_args()  # an argument is an error
    model, gallery = os.environ.get("TVTSV2_MODEL", "outputs/pretrain"), os.environ.get("TVTSV2_GALLERY", "gallery")
    if "TVTSV2_GALLERY" in os.environ and not Path(gallery).is_dir():
        sys.exit(f"error: TVTSV2_GALLERY is {gallery}, which is no folder.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # exit handlers delete the uploads
    try:
        serve(Engine(model, gallery))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
