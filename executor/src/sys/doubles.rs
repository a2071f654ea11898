//! Doubles of the foreign crates for the models, each with the property it assumes.
