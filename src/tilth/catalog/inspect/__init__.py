"""What a folder of imagery is: files, layout, sensor, labels and traps, found by looking at the data only."""
