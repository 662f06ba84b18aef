"""Import merged open-weight models into Bedrock (Custom Model Import), and generate with them."""
