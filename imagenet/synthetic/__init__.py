"""Images drawn from numbers, in the format of ImageNet."""
