//! Closing against a wake, against the count of live tasks.

use loom::thread;

use super::*;
