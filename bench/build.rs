//! Tells the program what compiler built it: a report names it.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc).arg("--version").output().expect("cargo's rustc starts");
    println!("cargo::rustc-env=GMP_BENCH_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
}
