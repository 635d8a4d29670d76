"""Classification data: class folders, tar files, Hub data sets."""
