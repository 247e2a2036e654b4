"""The LogStore node: one journal, many copies of segments."""
