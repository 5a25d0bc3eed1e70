"""ImageNet as batches: sources, order, decoding, augmentation."""
