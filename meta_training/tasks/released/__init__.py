"""The problems of the released code, one file per family."""
