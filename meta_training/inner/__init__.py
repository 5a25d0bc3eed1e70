"""The inner loop: many tasks side by side, unrolled window by window."""
