"""Mask R-CNN, Faster R-CNN and DETR on BoTNet backbones, and COCO metrics (tables 2 to 8)."""

from botvision.tasks.detection.detectors.detr import detr
from botvision.tasks.detection.detectors.rcnn import faster_rcnn, mask_rcnn

__all__ = ["detr", "faster_rcnn", "mask_rcnn"]
