"""Images: decoding, sources of images, drawing."""
