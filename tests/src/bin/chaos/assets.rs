//! Dictionaries and guests are swapped, broken and taken away.
