"""HTTP: requests to rooms, results to responses."""
