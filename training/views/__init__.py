"""Two augmented views of an image: random draws, colours, and the transform that puts them together."""
