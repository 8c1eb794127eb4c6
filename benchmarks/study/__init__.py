"""The study in miniature: does the recipe do what the paper says? Four claims on generated data (docs/study.md).

Data flow one way: settings -> world (drawing, registers) -> cells (a mini-CLIP a seed) -> arms (models, training_loop)
-> claims (examination, embedder, measures, step_costs) -> records (tables, intervals, plots), as figures says.
"""
