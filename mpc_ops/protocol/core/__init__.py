"""Sessions, stages, shares and openings: what every protocol stands on."""
