"""ResNet-18, the feed-forward network that results are usually compared with."""

from torch import Tensor
from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    """torchvision's ResNet-18 (He et al. 2016, arXiv:1512.03385), random weights, called like a tower.

    Its weights have torchvision's names, so files load either way. It has no memory: like a tower of "conv"
    cells it makes one step, whatever `time_steps` says.

    Args:
        num_classes: K.
    """

    stateless = True
    """As of towers: one time step says all."""

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)

    def check_size(self, height: int, width: int) -> None:
        """Nothing to say against any image, as towers might: every layer is padded."""

    def forward(
        self,
        x: Tensor,
        time_steps: int | None = None,
        return_all: bool = False,
        return_hidden: bool = False,
    ) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], list[Tensor] | list[list[Tensor]]]:
        """Logits of images x, (N, 3, Y, X).

        Args:
            time_steps: Ignored: every step would be the same.
            return_all: Return a list with the logits of the one step.
            return_hidden: Return (logits, hidden) with the outputs of the four stages: hidden[layer], or with
                return_all hidden[0][layer].
        """
        if x.ndim != 4:
            raise ValueError(f"images must be (N, C, Y, X), got shape {tuple(x.shape)}")
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        hidden: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            hidden.append(x)
        logits = self.fc(self.avgpool(x).flatten(1))
        if return_all:
            return ([logits], [hidden]) if return_hidden else [logits]
        return (logits, hidden) if return_hidden else logits
