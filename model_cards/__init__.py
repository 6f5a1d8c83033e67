"""Model cards: figures, text, and publishing to the Hub."""
