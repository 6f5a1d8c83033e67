"""Semantic segmentation: data, dilated FCN and UperNet on the backbone, mean IoU."""
