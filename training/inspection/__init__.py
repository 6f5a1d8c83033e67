"""Looking at a data set before training on it: contents, contact sheet, speed."""
