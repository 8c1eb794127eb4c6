"""The study in miniature: does sorting teach time, as the paper says? On generated data (docs/study.md).

Data flows one way: settings -> synthetic_videos (drawing, sentences) -> runs (one mini-CLIP per seed, models,
training_loop, evaluation) -> records (summary).
"""
