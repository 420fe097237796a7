"""Where a loader's bytes come from, and the state it can be resumed from."""
