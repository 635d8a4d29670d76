"""Mask R-CNN and Faster R-CNN on BoTNet backbones, and COCO metrics (paper tables 2 to 8)."""

from botvision.detection.detectors import faster_rcnn, mask_rcnn

__all__ = ["faster_rcnn", "mask_rcnn"]
