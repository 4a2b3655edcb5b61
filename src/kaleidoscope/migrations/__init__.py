"""The schema's history: one file a step, applied by `kernel.migrate`."""
