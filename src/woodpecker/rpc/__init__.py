"""Requests and replies between clients and LogStore nodes."""
