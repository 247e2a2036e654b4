"""Simulation of a streaming service: coordinators, nodes and clients on virtual time, among faults by seed."""
