"""Looking at what a backbone has learned, image by image, in a browser."""
