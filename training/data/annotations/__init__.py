"""Boxes and masks in files beside images: COCO JSON, YOLO text files, VOC XML files, folders of mask images."""
