"""A linear classifier on frozen features, trained to the optimum in bounded memory.

Multinomial logistic regression with an L2 penalty by L-BFGS; loss and gradient are summed over blocks of rows, so that
beside the features only a block of logits is ever held. Features are standardised with the training part's statistics.

Axes: N rows, D features, C classes, b rows of a block.
"""

from collections.abc import Callable

import numpy as np
import torch

BLOCK_SIZE = 8192
MAX_ITERATIONS = 100
# Strengths of the penalty tried, on the mean loss: from "ignore the features" to "fit as you like".
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


class LinearClassifier:
    """Weights (D + 1, C), the last row the bias, for rows that `fit` was given the statistics of.

    Args:
        features: (N, D) float32, the rows whose mean and standard deviation are used; read in blocks.
        num_classes: C.
        device: Where blocks are worked on.
    """

    def __init__(self, features: np.ndarray, num_classes: int, device: str = "cpu"):
        self.device = device
        self.mean, self.scale = _statistics(features)
        self.weights = torch.zeros(features.shape[1] + 1, num_classes, device=device)

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        penalty: float,
        rows: np.ndarray | None = None,
        on_iteration: Callable[[], None] = lambda: None,
    ) -> None:
        """Trains on, from the present weights; start with the strongest penalty.

        Args:
            features, labels: (N, D) float32 and int (N,).
            penalty: On the squared weights, bias left out, beside the mean loss.
            rows: Numbers of the rows to train on; None: all.
        """
        rows = np.arange(len(labels)) if rows is None else rows
        weights = self.weights.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weights],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=1e-6,
            tolerance_change=1e-9,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            loss, gradient = self._loss_and_gradient(weights.detach(), features, labels, rows, penalty)
            weights.grad = gradient
            on_iteration()
            return loss

        optimizer.step(closure)
        self.weights = weights.detach()

    def scores(self, features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Logits float32 (N, C), or (len(rows), C) of some rows only."""
        rows = np.arange(len(features)) if rows is None else rows
        scores = np.empty((len(rows), self.weights.shape[1]), np.float32)
        for start in range(0, len(rows), BLOCK_SIZE):
            block = rows[start : start + BLOCK_SIZE]
            scores[start : start + BLOCK_SIZE] = (self._block(features, block) @ self.weights).cpu()
        return scores

    def _loss_and_gradient(
        self, weights: torch.Tensor, features: np.ndarray, labels: np.ndarray, rows: np.ndarray, penalty: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        gradient = torch.zeros_like(weights)
        for start in range(0, len(rows), BLOCK_SIZE):
            block = rows[start : start + BLOCK_SIZE]
            inputs = self._block(features, block)
            own = torch.from_numpy(labels[block]).to(self.device)[:, None]
            log_probabilities = (inputs @ weights).log_softmax(dim=1)
            loss -= log_probabilities.gather(1, own).double().sum()
            error = log_probabilities.exp_()
            error.scatter_add_(1, own, -torch.ones_like(own, dtype=error.dtype))
            gradient.addmm_(inputs.T, error, alpha=1 / len(rows))
        shrunk = weights.clone()
        shrunk[-1] = 0
        return loss / len(rows) + penalty * shrunk.square().sum() / 2, gradient.add_(shrunk, alpha=penalty)

    def _block(self, features: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Standardised rows with a one behind, (b, D + 1)."""
        inputs = torch.ones(len(rows), features.shape[1] + 1, device=self.device)
        values = torch.from_numpy(np.ascontiguousarray(features[rows], dtype=np.float32))
        inputs[:, :-1] = (values.to(self.device) - self.mean.to(self.device)) * self.scale.to(self.device)
        return inputs


def _statistics(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / standard deviation (D,) over rows; features that never change are left as they are."""
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, len(features), BLOCK_SIZE):
        block = features[start : start + BLOCK_SIZE].astype(np.float64)
        count, total, squares = count + len(block), total + block.sum(axis=0), squares + np.square(block).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    scale = np.divide(1.0, deviation, out=np.ones_like(deviation), where=deviation > 1e-8)
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
