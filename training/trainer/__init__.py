"""The Trainer, its optimizer and momentum schedule, looks at held-out images, and pushes."""
