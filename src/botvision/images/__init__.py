"""Images: decoding, drawing."""
