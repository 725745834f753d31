"""The command line: words in, a verb's options out, one clear line for every mistake."""
