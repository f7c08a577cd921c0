"""Wires the rooms together: settings, the worker, the ledger, metrics, the command line."""
