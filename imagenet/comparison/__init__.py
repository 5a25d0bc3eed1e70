"""Several optimizers on the same images: runs, figures, report."""
