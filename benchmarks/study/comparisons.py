"""The study's comparisons: which claim's runs each is made of, and its tables, title -> columns (head, metric)."""

from dataclasses import dataclass

from benchmarks.study.sentences import STYLES

_STYLES = (*STYLES, "unseen")


@dataclass(frozen=True)
class Comparison:
    """Tables of one claim's metrics, arm by arm. decimals: in tables."""

    claim: str
    tables: dict[str, tuple[tuple[str, str], ...]]
    decimals: int = 1


def _per_style(name: str) -> tuple[tuple[str, str], ...]:
    return tuple((style.replace("_", "-"), f"{name}/{style}") for style in _STYLES)


_PROBES = (("color", "probe/color"), ("shape", "probe/shape"), ("motion", "probe/motion"))


def _summary(moment: str) -> tuple[tuple[str, str], ...]:
    return (
        ("R@1 asr", f"{moment}retrieval/asr"),
        ("R@1 unseen", f"{moment}retrieval/unseen"),
        ("shape unseen", f"{moment}shape/unseen"),
        ("probe shape", f"{moment}probe/shape"),
        ("probe motion", f"{moment}probe/motion"),
    )


_LANGUAGE = {
    "Zero-shot retrieval, text to video R@1 among 144, per style": _per_style("retrieval"),
    "Zero-shot recognition of the shape, top-1 of 6, per style": _per_style("shape"),
    "Zero-shot recognition of the motion, top-1 of 4, per style": _per_style("motion"),
    "Linear probe, top-1": _PROBES,
}
COMPARISONS: dict[str, Comparison] = {
    "language": Comparison("language", _LANGUAGE),
    "blocks": Comparison("language", {"By tuned blocks of the text tower": _summary("")}),
    "drift": Comparison(
        "language",
        {
            "Cosine to the start's embedding of the same sentence": _per_style("cosine"),
            "Linear CKA with the start's embeddings": _per_style("cka"),
            "Nearest neighbors kept": _per_style("neighbors"),
        },
        decimals=3,
    ),
    "sorting": Comparison(
        "sorting",
        {
            "Time, percent": (
                ("order, zero-shot (50)", "order"),
                ("came first, probe (50)", "which_first"),
                ("of four, probe (25)", "four_in_order"),
                ("direction, zero-shot (50)", "direction"),
                ("motion, probe (25)", "probe/motion"),
                ("sorter (25)", "sorter"),
            ),
            "The same probes on patch tokens, percent": (
                ("came first (50)", "which_first/patches"),
                ("of four (25)", "four_in_order/patches"),
            ),
            "Plain retrieval, text to video R@1": (
                ("asr", "retrieval/asr"),
                ("caption", "retrieval/caption"),
                ("two events", "retrieval/ordered"),
            ),
        },
    ),
    "masking": Comparison(
        "masking",
        {
            "Cost of a step": (
                ("ms", "milliseconds_per_step"),
                ("MiB kept for backward", "activation_mib"),
                ("steps at equal time", "num_steps_at_equal_time"),
            ),
            "At equal steps": _summary("equal_steps/"),
            "At equal time": _summary("equal_time/"),
        },
    ),
}
