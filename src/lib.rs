#![doc = "gmp"]
