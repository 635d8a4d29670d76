"""Shards: tar files of images with an index, read locally or from an address."""
