"""Word problems of grade school with solutions in short steps, and a language model that is fine-tuned on them."""
