"""The page of the demo: `python demo/app.py`, see README.md beside it."""

import os

import gradio as gr
from engine import MAX_MEGABYTES, MAX_SECONDS, Engine, InputError
from pictures import STYLE, draw_bars, draw_timeline

DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS = 60, 240
INTRO = f"""
# TVTSv2
Videos and sentences in one space. Upload a video (up to {MAX_MEGABYTES} MB and {MAX_SECONDS:.0f} s) and type what may
happen in it, one text a line. Uploads are deleted within five minutes.
"""


def build_page(engine: Engine) -> gr.Blocks:
    """Returns the page; every handler turns a visitor's mistake into a message."""

    def score(video, texts):
        scored = _call(engine.score, video, texts)
        return draw_bars(scored), draw_timeline(scored)

    def classify(video, labels, template):
        return _call(engine.classify, video, labels, template)

    def search(text):
        return _call(engine.search, text)

    with gr.Blocks(title="TVTSv2", delete_cache=(DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS)) as page:
        gr.Markdown(INTRO)
        with gr.Tab("Texts and timeline"), gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(label="Video", sources=["upload"], height=300)
                texts = gr.Textbox(label="Texts, one a line", lines=4, value="a red star\na blue circle")
                button = gr.Button("Score", variant="primary")
            with gr.Column(scale=3):
                gr.Markdown("### How well each text fits")
                bars = gr.HTML(elem_id="bars")
                gr.Markdown("### When it happens")
                times = gr.HTML(elem_id="times")
            button.click(score, [video, texts], [bars, times], api_name="score")
        with gr.Tab("Labels"), gr.Row():
            with gr.Column(scale=2):
                labelled = gr.Video(label="Video", sources=["upload"], height=300)
                labels = gr.Textbox(label="Labels, one a line", lines=4, value="archery\njuggling balls")
                template = gr.Textbox(label="Template, {} is the label", value="a person {}")
                classify_button = gr.Button("Classify", variant="primary")
            with gr.Column(scale=3):
                answer = gr.Label(label="Probabilities over these labels", num_top_classes=12)
            classify_button.click(classify, [labelled, labels, template], answer, api_name="classify")
        with gr.Tab("Gallery"):
            query = gr.Textbox(label=f"Search {len(engine.gallery)} videos", placeholder="a red star moves up")
            hits = gr.Gallery(label="Best first", columns=4, height="auto")
            query.submit(search, query, hits, api_name="search")
    return page


def _call(function, *arguments):
    try:
        return function(*arguments)
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def main() -> None:
    gallery = os.environ.get("TVTSV2_GALLERY", "gallery")
    page = build_page(Engine(os.environ.get("TVTSV2_MODEL", "outputs/pretrain"), gallery))
    page.launch(
        max_file_size=f"{MAX_MEGABYTES}mb",
        css=STYLE,
        theme=gr.themes.Soft(primary_hue="indigo"),
        allowed_paths=[gallery] if os.path.isdir(gallery) else None,
        footer_links=[],
    )


if __name__ == "__main__":
    main()
