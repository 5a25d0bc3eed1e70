"""Tests of the three packages, in folders named after them, and of the project."""
