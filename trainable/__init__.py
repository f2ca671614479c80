"""One trial: a validated configuration goes in, metrics and checkpoints come out."""

from trainable.config import TrainConfig

__all__ = ["TrainConfig"]
