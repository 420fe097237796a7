"""Errors, digests, atomic files, locks, progress events and settings: what every other room stands on."""
