"""Blind comparison of two models' answers by people, and how well the judges agree."""
