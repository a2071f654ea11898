//! Tells the program what compiler built it, and with what settings: a report names them.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc).arg("--version").output().expect("cargo's rustc starts");
    println!("cargo::rustc-env=GMP_BENCH_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
    let mut settings = vec![format!("opt-level {}", env::var("OPT_LEVEL").expect("cargo sets it"))];
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        settings.push(format!("RUSTFLAGS={}", flags.replace('\x1f', " ")));
    }
    for name in ["LTO", "CODEGEN_UNITS", "OPT_LEVEL", "PANIC", "DEBUG_ASSERTIONS"] {
        let name = format!("CARGO_PROFILE_RELEASE_{name}");
        println!("cargo::rerun-if-env-changed={name}");
        if let Ok(value) = env::var(&name) {
            settings.push(format!("{name}={value}"));
        }
    }
    if settings.len() == 1 {
        settings.push("no RUSTFLAGS or CARGO_PROFILE_RELEASE_… set".into());
    }
    println!("cargo::rustc-env=GMP_BENCH_SETTINGS={}", settings.join(", "));
}
