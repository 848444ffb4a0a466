"""Mallard: a self-hosted analytics server in one process and one data folder."""
