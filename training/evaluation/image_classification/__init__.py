"""Classification of images: kNN, linear probes and fine-tuning with few labels."""
