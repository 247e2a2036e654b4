"""What users of the streaming service hold."""
