"""COCO instance annotations."""
