"""The command line: arguments in, text or JSON out. Nothing thinks here."""
