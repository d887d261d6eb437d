"""Applications: data sets, transforms, command lines, plots of logs."""
