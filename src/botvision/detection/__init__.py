"""Mask R-CNN, Faster R-CNN and DETR on BoTNet backbones, and COCO metrics (tables 2 to 8)."""

from botvision.detection.detectors import faster_rcnn, mask_rcnn
from botvision.detection.detr import detr

__all__ = ["detr", "faster_rcnn", "mask_rcnn"]
