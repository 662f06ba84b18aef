"""What the Data pages show: files to choose from, lines, tokens and surveys of data."""
