"""The detectors: Mask R-CNN, Faster R-CNN and DETR on timm backbones."""
