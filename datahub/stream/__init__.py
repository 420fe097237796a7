"""Where a loader's bytes come from (`source`), and the state it can be resumed from (`state`)."""
