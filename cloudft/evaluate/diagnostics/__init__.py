"""What goes wrong in tuning without anyone noticing: one measurement a module."""
