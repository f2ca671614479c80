"""Dropout of whole channels, the same ones all along a sequence."""

from torch import Tensor, nn


class SpatialDropout(nn.Module):
    """Drop whole channels (Tompson et al. 2015, arXiv:1411.4280), the same ones all along a sequence.

    A pixel's neighbours carry nearly its value, so single pixels are no loss; a channel is. Kept channels
    are scaled by 1 / (1 - p). The mask is drawn from torch's global generator of x's device.

        mask = dropout.mask(x)                      # once per forward pass
        for t in range(T): x_t = dropout(x_t, mask)

    Args:
        p: Probability of dropping a channel of one image, 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
        self.p = p

    def mask(self, x: Tensor, channels: int | None = None) -> Tensor | None:
        """An (N, channels, 1, 1) factor for maps like x; None where dropout changes nothing (eval, p = 0)."""
        if not self.training or self.p == 0.0:
            return None
        keep = 1.0 - self.p
        return x.new_empty(x.shape[0], channels or x.shape[1], 1, 1).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            mask = self.mask(x)
        return x if mask is None else x * mask

    def extra_repr(self) -> str:
        return f"p={self.p}"
