"""Measuring Woodpecker against the limit of the back end it runs on, in one process and one run."""
