"""What a model's name or folder holds: reference, processor, checksums, sizes of its stages."""
