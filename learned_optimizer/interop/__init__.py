"""The optimizer in other formats: SavedModel, and checkpoints of the released code."""
