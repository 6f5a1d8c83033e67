"""What a user may set: options, recipes and training arguments, with their types and values."""
