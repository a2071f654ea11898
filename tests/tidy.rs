//! What reviewers would else repeat: the code map in ARCHITECTURE.md holds, and unsafe code and orderings say why.
//!
//! 1. A check reads lines, not syntax: it is simple, and what it cannot see clippy and the reader do.
//! 2. A failure names every place at once, and for the map the row that would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines above an `unsafe` block in which its note stands.
const SAFETY_LINES: usize = 5;
/// Lines above an atomic operation in which its partner is named.
const PARTNER_LINES: usize = 14;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files under `directory` whose name ends in one of `endings`, sorted.
fn files(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    open.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The sources of a crate that are not tests: files named for tests are left out, and so is a test module at the end.
fn sources(directory: &str) -> Vec<(PathBuf, Vec<String>)> {
    let directory = root().join(directory);
    let mut found = Vec::new();
    for path in files(&directory, &[".rs"]) {
        let inside = path.strip_prefix(&directory).unwrap().to_string_lossy().into_owned();
        let parts: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
        // `sys/loom.rs` is a form of `sys`, not a test of it.
        if parts[0] != "sys" && parts.iter().any(|part| ["tests", "loom"].contains(part)) || inside == "sys/doubles.rs"
        {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).map(str::to_owned).collect();
        found.push((path, lines));
    }
    found
}

/// The line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap()
}

/// The comment in a line, if it has one.
fn comment(line: &str) -> Option<&str> {
    line.find("//").map(|at| &line[at..])
}

fn place(path: &Path, line: usize) -> String {
    format!("{}:{}", path.strip_prefix(root()).unwrap().display(), line + 1)
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// What stands between backticks in `text`.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expand(name: &str) -> Vec<String> {
    let (Some(open), Some(close)) = (name.find('{'), name.find('}')) else {
        return vec![name.to_owned()];
    };
    name[open + 1..close].split(',').map(|part| format!("{}{part}{}", &name[..open], &name[close + 1..])).collect()
}

/// The names that follow `crate::` in a line: one, or those of a group.
fn modules(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap());
        for name in group.unwrap_or(rest).split(", ").take(if group.is_some() { usize::MAX } else { 1 }) {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(name);
        }
    }
    found
}

/// A row of the code map: its files and what they may touch.
struct Row {
    files: Vec<String>,
    touches: BTreeSet<String>,
}

/// The table under the heading that names `executor/src/`, by module.
fn code_map() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let lines = text.lines().skip_while(|line| !(line.starts_with('#') && line.contains("`executor/src/`")));
    let rows = lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 3, "a row is file, is, may touch: {line}");
        let files: Vec<_> = quoted(cells[0]).iter().flat_map(|name| expand(name)).collect();
        let noun = files[0].trim_end_matches(".rs").to_owned();
        (noun, Row { files, touches: quoted(cells[2]).into_iter().collect() })
    })
    .collect()
}

/// The foreign crates whose use the map states.
const FOREIGN: [&str; 10] = [
    "async_task",
    "concurrent_queue",
    "crossbeam_deque",
    "event_listener",
    "futures_core",
    "libc",
    "loom",
    "polling",
    "rustix",
    "tracing",
];

#[test]
fn the_map_of_the_executor_holds() {
    let map = code_map();
    let source = root().join("executor/src");
    let mut wrong = Vec::new();
    for file in map.values().flat_map(|row| &row.files) {
        if !source.join(file).is_file() {
            wrong.push(format!("ARCHITECTURE.md has a row for {file}, which is not there"));
        }
    }
    let known: BTreeSet<_> = map.values().flat_map(|row| row.files.iter().cloned()).collect();
    let mut touched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, lines) in sources("executor/src") {
        let file = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        if !known.contains(&file) {
            wrong.push(format!("{file} is in no row of ARCHITECTURE.md"));
        }
        let noun = file.trim_end_matches(".rs").split('/').next().unwrap().to_owned();
        let edges = touched.entry(noun.clone()).or_default();
        for line in lines.iter().map(|line| code(line)) {
            edges.extend(modules(line).into_iter().filter(|name| *name != noun && !name.is_empty()));
            let foreign = FOREIGN.iter().filter(|name| {
                line.match_indices(&format!("{name}::"))
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            });
            edges.extend(foreign.map(|name| name.replace('_', "-")));
        }
    }
    for (noun, edges) in &touched {
        let row = map.get(noun).map(|row| row.touches.clone()).unwrap_or_default();
        if row != *edges {
            let right: Vec<_> = edges.iter().map(|name| format!("`{name}`")).collect();
            wrong.push(format!("{noun} touches {}, and its row says {row:?}", right.join(" ")));
        }
    }
    assert_none("the code map and the code differ", &wrong);
}

#[test]
fn what_the_architecture_names_is_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut missing = Vec::new();
    for name in text.lines().flat_map(quoted).flat_map(|name| expand(&name)) {
        let is_path = name.contains('/') || [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending));
        let places = [root(), root().join("executor/src"), root().join("net/src")];
        if is_path && !name.contains(' ') && !places.iter().any(|place| place.join(&name).exists()) {
            missing.push(name);
        }
    }
    assert_none("ARCHITECTURE.md names what is not there", &missing);
}

#[test]
fn r23_unsafe_code_says_why_it_is_sound() {
    let mut bare = Vec::new();
    for directory in ["src", "executor/src", "net/src", "macros/src"] {
        for path in files(&root().join(directory), &[".rs"]) {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let is_unsafe = ["unsafe {", "unsafe impl"].iter().any(|what| code(line).contains(what));
                let above = &lines[at.saturating_sub(SAFETY_LINES)..=at];
                if is_unsafe && !above.iter().filter_map(|line| comment(line)).any(|note| note.contains("SAFETY:")) {
                    bare.push(place(&path, at));
                }
            }
        }
    }
    assert_none("unsafe code without a `// SAFETY:` note", &bare);
}

#[test]
fn r01_orderings_name_their_partners() {
    const ORDERINGS: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];
    let mut bare = Vec::new();
    for directory in ["executor/src", "net/src"] {
        for (path, lines) in sources(directory) {
            // `sys` has the named fences and the loom form; both say there what they are for.
            if path.starts_with(root().join("executor/src/sys")) || path.ends_with("executor/src/sys.rs") {
                continue;
            }
            let mut import = false;
            for (at, line) in lines.iter().enumerate() {
                import |= code(line).trim_start().starts_with("use ");
                let orders = !import && ORDERINGS.iter().any(|ordering| code(line).contains(ordering));
                import &= !code(line).trim_end().ends_with(';');
                let mut notes = lines[at.saturating_sub(PARTNER_LINES)..=at].iter().filter_map(|line| comment(line));
                if orders && !notes.any(|note| ORDERINGS.iter().any(|ordering| note.contains(ordering))) {
                    bare.push(place(&path, at));
                }
            }
        }
    }
    assert_none("an ordering without a comment that names it and its partner", &bare);
}

#[test]
fn the_core_takes_atomics_and_locks_from_sys() {
    let mut found = Vec::new();
    for (path, lines) in sources("executor/src") {
        if path.starts_with(root().join("executor/src/sys")) || path.ends_with("executor/src/sys.rs") {
            continue;
        }
        for (at, line) in lines.iter().enumerate() {
            let names = ["std::sync::atomic", "std::sync::Mutex", "std::sync::RwLock", "std::sync::Condvar"];
            if names.iter().any(|name| code(line).contains(name)) {
                found.push(place(&path, at));
            }
        }
    }
    assert_none("std's atomics or locks outside `sys`", &found);
}

/// Addresses that nobody else can reach.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// The host of an address that stands between quotes.
fn hosts(line: &str) -> Vec<&str> {
    let literals = line.split('"').skip(1).step_by(2);
    let addresses = literals.filter_map(|text| text.rsplit_once(':'));
    addresses.filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(host, _)| host).collect()
}

#[test]
fn r22_examples_listen_where_nobody_else_comes() {
    let mut found = Vec::new();
    let mut listening = 0;
    let of_examples = files(&root().join("examples"), &[".rs"]);
    let others = ["README.md", "src", "net/src", "executor/src"].map(|name| root().join(name));
    let docs = others.iter().flat_map(|path| if path.is_dir() { files(path, &[".rs"]) } else { vec![path.clone()] });
    for path in of_examples.iter().cloned().chain(docs) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            // In an example an address is mostly where it listens; docs also show whom to connect to.
            let listens = of_examples.contains(&path) || line.contains("bind(");
            let hosts = if listens { hosts(line) } else { Vec::new() };
            listening += hosts.len();
            let is_doc = of_examples.contains(&path) || comment(line).is_some() || path.ends_with("README.md");
            let is_any = is_doc && ["0.0.0.0", "[::]", "UNSPECIFIED"].iter().any(|any| line.contains(any));
            if is_any || hosts.iter().any(|host| !LOOPBACK.contains(host)) {
                found.push(place(&path, at));
            }
        }
    }
    assert!(listening > 3, "no example listens, or it is not seen");
    assert_none("an example that others can reach, without its reader having asked for it", &found);
}

/// A variable of the environment is set by who starts the program, which may not be who answers for it.
#[test]
fn r22_the_environment_changes_numbers_and_nothing_that_is_safe() {
    const KNOWN: [&str; 3] = ["GMP_PROCS", "GMP_SCHEDTRACE", "RUST_MIN_STACK"];
    let mut read = BTreeSet::new();
    let mut places = Vec::new();
    for directory in ["src", "executor/src", "net/src", "macros/src"] {
        for (path, lines) in sources(directory) {
            for (at, line) in lines.iter().enumerate() {
                if ["env::var", "env::vars", "option_env!", "getenv"].iter().any(|how| code(line).contains(how)) {
                    places.push(place(&path, at));
                }
                let names = code(line).split("env(\"").skip(1).filter_map(|rest| rest.split('"').next());
                read.extend(names.map(str::to_owned));
            }
        }
    }
    assert_eq!(places.len(), 1, "all variables are read in one place, which says what is wrong with them: {places:?}");
    assert_eq!(read, KNOWN.map(str::to_owned).into(), "ARCHITECTURE.md says what variables there are, and what for");
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that this file is clean too.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["unimplemented", "!("]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for path in files(&root(), &[".rs", ".md", ".toml"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(place(&path, at));
            }
        }
    }
    assert_none("left for later", &found);
}

/// They call what they hide from users: a newer one of them beside an older one would not build, or do something else.
#[test]
fn the_crates_ask_for_each_others_exact_version() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    for name in ["executor", "net", "macros"] {
        let asked = format!("gmp-{name} = {{ path = \"{name}\", version = \"={version}\" }}");
        assert!(manifest.lines().any(|line| line == asked), "Cargo.toml says: {asked}");
    }
}

/// rustfmt keeps code as narrow; comments and Markdown it leaves alone. Tables are as wide as they are.
#[test]
fn prose_is_as_narrow_as_code() {
    const WIDTH: usize = 120;
    let mut found = Vec::new();
    for path in files(&root(), &[".rs", ".md"]) {
        if path.ends_with("RESULTS.md") {
            continue;
        }
        let is_markdown = path.extension().is_some_and(|ending| ending == "md");
        for (at, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let text = line.trim_start();
            let is_comment = text.starts_with("//") && !text.trim_start_matches(['/', '!', ' ']).starts_with('|');
            let is_prose = is_comment || is_markdown && !text.starts_with(['|', '#', '!']);
            if is_prose && line.chars().count() > WIDTH {
                found.push(place(&path, at));
            }
        }
    }
    assert_none("wider than 120 columns", &found);
}
