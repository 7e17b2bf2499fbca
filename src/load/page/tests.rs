//! The page and the JSON as they are read.
