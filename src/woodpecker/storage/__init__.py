"""Object stores: one port (base.py) and its adapters."""
