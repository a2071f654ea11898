//! The scheduler of gmp.
#![deny(missing_docs)]

mod sys;

mod park;
