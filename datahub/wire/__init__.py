"""What a cache server and its clients say to each other: paths, ranges, messages, tokens, and a synchronous client."""
