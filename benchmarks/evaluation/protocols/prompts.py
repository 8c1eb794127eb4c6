"""Texts for classes: one template or several, their embeddings averaged.

Axes: C classes, P templates, D width of embeddings.
"""

from collections.abc import Callable

import numpy as np

# Source: paper, section 4.3 (zero-shot action recognition).
DEFAULT_TEMPLATES = ("a person {}",)


def check_templates(templates: list[str]) -> None:
    """Raises `ValueError` unless each template has one place, `{}`, for the name of the class."""
    for template in templates:
        if template.count("{}") != 1 or template.replace("{}", "").count("{"):
            raise ValueError(
                f"A prompt template needs one {{}} where the class goes, as in 'a person {{}}': {template!r}."
            )


def fill(templates: list[str], classes: tuple[str, ...]) -> list[str]:
    """C * P texts, all templates of a class together."""
    return [template.replace("{}", name) for name in classes for template in templates]


def class_embeddings(
    embed_texts: Callable[[list[str]], np.ndarray], templates: list[str], classes: tuple[str, ...]
) -> np.ndarray:
    """(C, D) of length 1: text embeddings of length 1, averaged over templates, at length 1 again.

    Source: paper, section 4.3.
    """
    embeddings = embed_texts(fill(templates, classes)).reshape(len(classes), len(templates), -1).mean(axis=1)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
