"""Object detection: data, Faster and Mask R-CNN on the backbone, COCO metrics."""
