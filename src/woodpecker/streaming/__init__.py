"""The streaming service: named channels, publish and subscribe, on nothing but logs. docs/streaming.md has the rules."""
