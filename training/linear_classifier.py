"""A linear classifier on frozen features: multinomial logistic regression with an L2 penalty, by L-BFGS.

Loss and gradient are summed over blocks of rows, so that beside the features only a block of logits is ever held.

Axes: N rows, D features, C classes.
"""

from collections.abc import Callable

import torch
from torch import nn

BLOCK_SIZE = 8192
MAX_ITERATIONS = 100


class LinearClassifier:
    """Scores rows of features, standardized with the mean and the standard deviation of those that it is made with.

    Args:
        features: (N, D); features that never change are only shifted.
        num_classes: C.
    """

    def __init__(self, features: torch.Tensor, num_classes: int):
        deviation = features.std(0, correction=0)
        self.mean, self.deviation = features.mean(0), torch.where(deviation > 1e-8, deviation, 1.0)
        self.layer = nn.Linear(features.shape[1], num_classes, device=features.device)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    @torch.enable_grad()
    def fit(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        penalty: float,
        on_iteration: Callable[[], object] = lambda: None,
    ) -> None:
        """Train to the optimum, from the present weights; of several penalties, start with the strongest.

        Args:
            features, labels: (N, D), and int64 (N,) on the same device.
            penalty: on half of the squared weights, the bias left out, beside the mean loss.
            on_iteration: is called after each pass over the features.
        """
        optimizer = torch.optim.LBFGS(
            self.layer.parameters(), max_iter=MAX_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            total = penalty / 2 * self.layer.weight.square().sum().double()
            total.backward()
            for block, own in zip(features.split(BLOCK_SIZE), labels.split(BLOCK_SIZE), strict=True):
                losses = nn.functional.cross_entropy(self._logits(block), own, reduction="none")
                loss = losses.double().sum() / len(labels)
                loss.backward()
                total = total + loss
            on_iteration()
            return total.detach()

        optimizer.step(closure)

    @torch.no_grad()
    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C)."""
        return torch.cat([self._logits(block) for block in features.split(BLOCK_SIZE)])

    def _logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer((features - self.mean) / self.deviation)
