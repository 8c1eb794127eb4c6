"""The study in miniature: does the recipe do what the paper says? Four claims on generated data.

    python -m benchmarks.study                       # all of it, resumable
    python -m benchmarks.study --only language       # one claim

Unfinished: no claim has been run yet, mini-CLIP's training is not settled (its shapes are still near chance), and
there are no tests. Nothing may be concluded from it so far.
"""
