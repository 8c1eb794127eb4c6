"""The study in miniature: does the recipe do what the paper says? Four claims on generated data (docs/study.md).

Data flow one way: settings -> world (drawing, registers) -> cells (one mini-CLIP per seed) -> arms (models,
training_loop) -> claims (evaluation, embedder, metrics, step_costs) -> records (tables, intervals, plots), as
comparisons lists.
"""
