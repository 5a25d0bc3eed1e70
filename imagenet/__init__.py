"""Inception V3 and ResNet V2 on ImageNet, or on images drawn on the spot."""
