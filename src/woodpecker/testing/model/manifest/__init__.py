"""A model of the manifest under concurrent change, over ``core/transitions`` (log protocol, section 1)."""
