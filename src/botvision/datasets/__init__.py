"""Images and annotations: reading, checking, augmenting, and the embedded handwriting scenes."""
