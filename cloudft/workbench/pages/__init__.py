"""The pages of the workbench, one module for each entry of its navigation, with `routes()`."""
