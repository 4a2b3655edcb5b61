"""What every room stands on: settings, database, errors, HTTP edge, logs, clock. Knows no photo."""
