"""The AWS side as code: templates, what they cost, and the stacks that are made of them."""
