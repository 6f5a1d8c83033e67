"""The pixels of one image: decoding, orientation, pixel modes and the centre crop."""
