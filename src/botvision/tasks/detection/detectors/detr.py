"""DETR over any timm backbone, as a torchvision detector; future work in the paper."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from botvision.errors import BotvisionError
from botvision.precision import widened
from botvision.tasks.detection.detectors.backbone import DeepestMap
from botvision.tasks.detection.detectors.detr_losses import (
    detections_of,
    relative_targets,
    set_losses,
)
from botvision.tasks.detection.detectors.targets import check_targets
from botvision.tasks.detection.detectors.transform import DetectorTransform


class Detr(nn.Module):
    """DETR (Carion et al. 2020) on the deepest map of a backbone; needs the extra ``detr``.

    Images are a list of float tensors [3, H, W] in 0..1 of any size. Boxes are x1 y1 x2 y2 in
    pixels of the input image. Labels run from 1; 0 is the background.

    The defaults are the authors'. Encoder, decoder, position encoding, matching and losses are
    those of Hugging Face Transformers. The backbone is not, for Transformers freezes every
    BatchNorm, redraws the weights and takes no arguments. Here the whole backbone is trained,
    from random weights unless ``backbone_arguments`` asks for others.

    Args:
        backbone: Name of a timm model that gives feature maps, including botvision's.
        num_classes: Number of classes including the background.
        image_size: Side of the square that images are fitted into.
        num_queries: Largest number of objects found in an image; further ones are not learned.
        hidden_dim: Channels of encoder and decoder, a multiple of 4 and of ``num_heads``.
        num_heads: Attention heads of encoder and decoder.
        dim_feedforward: Width of their feed-forward layers.
        encoder_layers: Number of encoder layers.
        decoder_layers: Number of decoder layers.
        dropout: Dropout probability in encoder and decoder.
        auxiliary_loss: Whether all decoder layers have losses, not the last alone.
        backbone_arguments: Further arguments of the backbone.

    Attributes:
        transform: torchvision's resizing, normalization and padding.

    Raises:
        BotvisionError: If Transformers or SciPy is missing.
        ValueError: If the backbone is unknown or ``hidden_dim`` does not fit.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        image_size: int = 1024,
        num_queries: int = 100,
        hidden_dim: int = 256,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
        auxiliary_loss: bool = True,
        backbone_arguments: dict[str, Any] | None = None,
    ) -> None:
        if hidden_dim % 4 or hidden_dim % num_heads:
            raise ValueError(
                f"hidden_dim: expected a multiple of 4 and of {num_heads} heads, got {hidden_dim}"
            )
        try:
            import scipy.optimize  # noqa: F401 - the matching needs it, later
            from transformers import DetrConfig
            from transformers.models.detr import modeling_detr
        except ImportError as error:
            raise BotvisionError(
                f"detector detr: {error.name} is missing; pip install 'botvision[detr]'"
            ) from error
        super().__init__()
        config = DetrConfig(
            d_model=hidden_dim,
            encoder_attention_heads=num_heads,
            decoder_attention_heads=num_heads,
            encoder_ffn_dim=dim_feedforward,
            decoder_ffn_dim=dim_feedforward,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
        )
        self.backbone = DeepestMap(backbone, image_size=image_size, arguments=backbone_arguments)
        mean, std = list(self.backbone.mean), list(self.backbone.std)
        self.transform = _FitIntoSquare(image_size, mean, std)
        self.projection = nn.Conv2d(self.backbone.out_channels, hidden_dim, kernel_size=1)
        self.positions: nn.Module = modeling_detr.DetrSinePositionEmbedding(
            hidden_dim // 2, normalize=True
        )
        self.encoder: nn.Module = modeling_detr.DetrEncoder(config)
        self.queries = nn.Embedding(num_queries, hidden_dim)
        self.decoder: Any = modeling_detr.DetrDecoder(config)
        self.class_head = nn.Linear(hidden_dim, num_classes)  # the background last
        self.box_head: nn.Module = modeling_detr.DetrMLPPredictionHead(
            hidden_dim, hidden_dim, 4, num_layers=3
        )
        self._auxiliary_loss = auxiliary_loss
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                # As the authors; Transformers draws all weights with a deviation of 0.02.
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute losses in training, detections in evaluation.

        Args:
            images: Float [3, H, W] in 0..1.
            targets: In training, for each image ``boxes`` [n, 4], x1 y1 x2 y2 in pixels, and
                ``labels`` [n], from 1.

        Returns:
            In training ``set_losses``' losses. In evaluation for each image ``boxes`` [queries, 4],
            x1 y1 x2 y2 in pixels, ``labels`` [queries], from 1, and ``scores`` [queries],
            highest first.

        Raises:
            ValueError: In training without targets, or with wrong ones.
        """
        if self.training and targets is None:
            raise ValueError("targets: expected boxes and labels in training, got none")
        if self.training and targets is not None:
            check_targets(images, targets, self.class_head.out_features)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(images, targets)
        decoded = widened(self._decode(batch))
        # bfloat16 has 8 bits, which is a pixel at 128 and eight at 1024.
        with torch.autocast(decoded.device.type, enabled=False):
            logits = self.class_head(decoded)
            boxes = self.box_head(decoded).sigmoid()
            if not self.training:
                return detections_of(logits[-1], boxes[-1], sizes)
            assert targets is not None
            return set_losses(logits, boxes, relative_targets(targets, batch.image_sizes))

    def _decode(self, images: ImageList) -> Tensor:
        """Return the queries after decoder layers, [layers, B, queries, width].

        The last layer, and in training all layers that have losses.
        """
        maps = self.backbone(images.tensors)
        visible = _visible(images, maps.shape[-2:])
        positions = self.positions(
            shape=maps.shape, device=maps.device, dtype=images.tensors.dtype, mask=visible
        )
        positions, visible = positions.flatten(2).transpose(1, 2), visible.flatten(1)
        encoded = self.encoder(
            inputs_embeds=self.projection(maps).flatten(2).transpose(1, 2),
            attention_mask=visible,
            spatial_position_embeddings=positions,
        )
        queries = self.queries.weight.expand(len(maps), -1, -1)
        decoded = self.decoder(
            inputs_embeds=torch.zeros_like(queries),
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=visible,
            spatial_position_embeddings=positions,
            object_queries_position_embeddings=queries,
            output_hidden_states=True,
        )
        last: Tensor = decoded.last_hidden_state
        if not (self.training and self._auxiliary_loss):
            return last[None]
        # Transformers' own auxiliary loss also feeds the normalized states to the next layer,
        # which the authors do not. The first state is the input, the last one ``last``.
        between = [self.decoder.layernorm(state) for state in decoded.hidden_states[1:-1]]
        return torch.stack([*between, last])


detr = Detr
"""``Detr``, by the name that recipes have for it."""


class _FitIntoSquare(DetectorTransform):
    """torchvision's transform, always padding to the whole square.

    The output of a backbone with attention would otherwise depend on the sizes of the other
    images in the batch. In training only images that are too large are resized: the augmentation
    has chosen the scale of the others.
    """

    def __init__(self, side: int, mean: list[float], std: list[float]) -> None:
        super().__init__(side, side, mean, std, size_divisible=side)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Fit an image [3, H, W] and its boxes into the square."""
        if self.training and max(image.shape[-2:]) <= self.max_size:
            return image, target
        resized: tuple[Tensor, dict[str, Tensor] | None] = super().resize(image, target)
        return resized


def _visible(images: ImageList, size: torch.Size) -> Tensor:
    """Return which cells of a map [H, W] are image rather than padding, bool [B, H, W]."""
    shown = images.tensors.new_zeros(len(images.tensors), 1, *images.tensors.shape[-2:])
    for each, (height, width) in zip(shown, images.image_sizes, strict=True):
        each[:, :height, :width] = 1
    return F.interpolate(shown, size=list(size)).squeeze(1).bool()  # a cell's first pixel decides
