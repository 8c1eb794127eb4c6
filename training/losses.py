"""The pre-training losses. They live with the model, whose code travels to the hub; training imports them from here."""

from modeling_tvtsv2.outputs_tvtsv2 import contrastive_loss, sorting_loss

__all__ = ["contrastive_loss", "sorting_loss"]
