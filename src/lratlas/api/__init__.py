"""What a person calls: explore, find, compare, load, and what they write."""
