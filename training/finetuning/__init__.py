"""Fine-tuning on labelled data, ending in a folder that other libraries load."""
