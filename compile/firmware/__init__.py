"""C sources that people take into the firmware of scanners they build."""
