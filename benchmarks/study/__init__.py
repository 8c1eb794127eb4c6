"""The study in miniature: does the recipe do what the paper says? Three claims on generated data (docs/study.md).

Data flows one way: settings -> synthetic_videos (drawing, sentences) -> runs (one mini-CLIP per seed, models,
training_loop) -> claims (evaluation, metrics, step_costs) -> records (summary), as comparisons lists.
"""
