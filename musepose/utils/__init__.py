"""What every part may use: errors, files, options, threads, devices, processes."""
