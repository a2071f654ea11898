//! What a program that uses gmp brings in with it: where it comes from, how much it is, and under which licences.
//!
//! 1. What is looked at is the lock file, and what cargo says of a program on this platform. Packages that only other
//!    platforms need may not even be here. Advisories are not looked at: they need a database of today.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A program has so many packages of others in it, without features and with all of them (hyper's own are the
/// difference). More is a decision: it is made here, with its reason in DESIGN.md.
const PLAIN_MAX: usize = 19;
const FEATURED_MAX: usize = 28;

/// What any of these allows may be used in any program that names its authors.
const LICENCES: [&str; 2] = ["MIT", "Apache-2.0"];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn is_ours(name: &str) -> bool {
    name == "gmp" || name.starts_with("gmp-")
}

/// The packages of others in a program that uses gmp, each name with its versions and licences.
fn packages(features: &[&str]) -> BTreeMap<String, Vec<(String, String)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = ["tree", "--offline", "--locked", "-p", "gmp", "-e", "normal,build", "--prefix", "none", "--no-dedupe"];
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(tree)
        .args(["-f", "{p}|{l}"])
        .args(features)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for line in String::from_utf8(output.stdout).expect("cargo writes text").lines() {
        let (package, licence) = line.split_once('|').expect("a package and its licence");
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let versions = found.entry(name).or_default();
        if !versions.iter().any(|(known, _)| *known == version) {
            versions.push((version, licence.to_owned()));
        }
    }
    assert!(found.contains_key("gmp") && found.contains_key("gmp-executor"), "cargo says something else: {found:?}");
    found.retain(|name, _| !is_ours(name));
    found
}

/// Whether a licence of ours is enough. The old form of a choice is a slash.
fn is_allowed(expression: &str) -> bool {
    if expression.contains("AND") || expression.contains('(') {
        return false;
    }
    expression.replace('/', " OR ").split(" OR ").any(|one| LICENCES.contains(&one.trim()))
}

#[test]
fn r27_everything_is_locked_and_from_the_registry() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("a lock file");
    let mut wrong = Vec::new();
    let mut count = 0;
    for package in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"'))
        };
        let name = field("name").expect("a package has a name");
        let is_from_there = field("source") == Some(REGISTRY) && field("checksum").is_some_and(|sum| sum.len() == 64);
        let is_here = field("source").is_none() && is_ours(name);
        if !is_from_there && !is_here {
            wrong.push(format!("{name}: {:?}, checksum {:?}", field("source"), field("checksum")));
        }
        count += 1;
    }
    assert!(count > PLAIN_MAX, "{count} packages in the lock file");
    assert!(wrong.is_empty(), "neither ours nor crates.io's:\n  {}", wrong.join("\n  "));
}

#[test]
fn r27_what_a_program_gets_is_little_and_nothing_twice() {
    for (features, most) in [(&[][..], PLAIN_MAX), (&["--all-features"], FEATURED_MAX)] {
        let packages = packages(features);
        let names: Vec<_> = packages.keys().collect();
        assert!(names.len() <= most, "{} packages of others with {features:?}, not {most}: {names:?}", names.len());
        let twice: Vec<_> = packages.iter().filter(|(_, versions)| versions.len() > 1).collect();
        assert!(twice.is_empty(), "more than one version: {twice:?}");
    }
}

#[test]
fn r27_what_a_program_gets_is_under_licences_like_ours() {
    let mut wrong = Vec::new();
    for (name, versions) in packages(&["--all-features"]) {
        wrong.extend(versions.into_iter().filter(|(_, licence)| !is_allowed(licence)).map(|it| (name.clone(), it)));
    }
    assert!(wrong.is_empty(), "not under {LICENCES:?}: {wrong:?}");
    for (expression, allowed) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("GPL-3.0-only", false),
        ("LGPL-2.1 OR MITNFA", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression:?}");
    }
}
