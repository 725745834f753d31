"""What decoders have in common: convolution with norm and activation, and the layer that names classes.

Shapes: B images, K classes.
"""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import SmallBatchError


class ConvolutionBlock(nn.Module):
    """Convolution without bias that keeps sides, batch norm, ReLU.

    Attributes:
        convolution: of the given kernel and dilation.
        norm: BatchNorm2d.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute float (B, out_channels, H, W) from float (B, in_channels, H, W)."""
        return F.relu(self.norm(self.convolution(maps)))


class ClassHead(nn.Module):
    """Dropout of whole channels, 1 x 1 convolution to classes, bilinear enlargement.

    Attributes:
        convolution: to K logits.
        scale: how much larger the result is; a fraction where strides are (7/2 for patches of 14 pixels).
        align_corners: whether the centres of the corner pixels stay in place, as S5 enlarges logits.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, scale: int | Fraction = 4, dropout: float = 0.1, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.convolution = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        self.scale = scale
        self.align_corners = align_corners

    def forward(self, maps: Tensor) -> Tensor:
        """Compute logits float (B, K, scale * H, scale * W) from float (B, in_channels, H, W)."""
        logits: Tensor = self.convolution(self.dropout(maps))
        if self.scale == 1:
            return logits
        height, width = logits.shape[-2:]
        size = (height * self.scale.numerator // self.scale.denominator, width * self.scale.numerator // self.scale.denominator)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)


def check_statistics(maps: Tensor, norm: nn.Module, pool: int, part: str) -> None:
    """Say clearly when batch norm would have to learn from one value for each channel.

    Args:
        maps: (B, ...) that is pooled.
        norm: behind the pooling.
        pool: side of the pooled map in pixels.
        part: what pools, for the message.

    Raises:
        SmallBatchError: one image in training, pooled to one pixel. Norms that are synchronised over processes or frozen are left alone.
    """
    if type(norm) is nn.BatchNorm2d and norm.training and maps.shape[0] * pool * pool == 1:
        raise SmallBatchError(
            f"{part} pools to one pixel, so batch norm sees one value per channel in a training batch of one image; "
            "train with at least two images per batch, or with synchronised batch norm"
        )
