"""Records that people label one at a time: order, suggestions, agreement, cost, export."""
