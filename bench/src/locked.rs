//! How many locked instructions an operation of gmp's executes, and how many of them on lines that all processors share:
//! callgrind counts each instruction, `objdump` says which of them are locked, and `addr2line` whose they are (`--locked`; x86-64).
//!
//! 1. A locked instruction is one with the prefix `lock`, an exchange with memory, or a full fence.
//! 2. It is on a shared line if a function of the global queue, of the list of idle processors, of the netpoller, or of a theft
//!    is among those it was inlined from. The others are on lines of a task, a processor, or a shard.
//! 3. As with the other counts, those of `n` operations and of `2 n` are taken in processes of their own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::gates::{self, Gate};

/// Modules, and functions, that are about what all processors share.
const SHARED: [&str; 6] = ["::inject::", "::idle::", "::netpoll::", "::Stealer", "::steal", "crossbeam_epoch"];

/// Places of which so many are named.
const NAMED: usize = 12;

/// A kind of place, and how often it is executed in an operation.
type Places = Vec<(String, f64)>;

/// Prints for each gated operation what is executed.
///
/// # Errors
///
/// valgrind, objdump or addr2line is not there or fails.
pub fn print() -> io::Result<()> {
    let program = std::env::current_exe()?;
    let locked = listed(&String::from_utf8_lossy(&gates::output(
        Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&program),
    )?));
    for gate in gates::all() {
        let places = places(&gate, &program, &locked)?;
        let sum = |shared: bool| -> f64 {
            places.iter().filter(|(name, _)| is_shared(name) == shared).map(|(_, times)| times).sum()
        };
        println!(
            "{:<16} {:>7.2} an operation, {:>7.2} of them on shared lines",
            gate.name,
            sum(false) + sum(true),
            sum(true)
        );
        for (name, times) in places.iter().take(NAMED) {
            println!("    {times:>7.2}  {}{name}", if is_shared(name) { "SHARED " } else { "" });
        }
    }
    Ok(())
}

fn is_shared(name: &str) -> bool {
    SHARED.iter().any(|shared| name.contains(shared))
}

fn places(gate: &Gate, program: &Path, locked: &HashSet<u64>) -> io::Result<Places> {
    let [once, twice] = [1, 2].map(|times| {
        let profile = gates::profile(gate, times)?;
        Ok::<_, io::Error>(executed(&profile, &program.to_string_lossy(), locked))
    });
    let (once, twice) = (once?, twice?);
    let mut addresses: Vec<u64> = twice.keys().copied().collect();
    addresses.sort_unstable();
    let arguments = addresses.iter().map(|address| format!("{address:#x}"));
    let said = gates::output(Command::new("addr2line").arg("-aifCe").arg(program).args(arguments))?;
    let names = named(&String::from_utf8_lossy(&said));
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for address in addresses {
        let times = (twice[&address] as f64 - once.get(&address).copied().unwrap_or(0) as f64) / gate.ops() as f64;
        *sums.entry(names.get(&address).cloned().unwrap_or_default()).or_default() += times;
    }
    let mut places: Places = sums.into_iter().filter(|(_, times)| *times >= 0.005).collect();
    places.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(places)
}

/// The addresses of locked instructions in what objdump prints.
fn listed(text: &str) -> HashSet<u64> {
    let locked = |code: &str| {
        let exchange = code.starts_with("xchg") && code.contains('(');
        code.starts_with("lock ") || exchange || code.starts_with("mfence")
    };
    text.lines()
        .filter_map(|line| {
            let (address, code) = line.split_once(':')?;
            locked(code.trim()).then(|| u64::from_str_radix(address.trim(), 16).ok())?
        })
        .collect()
}

/// How often each of those addresses in `program` is executed in a profile of callgrind's.
fn executed(profile: &str, program: &str, locked: &HashSet<u64>) -> HashMap<u64, u64> {
    let mut times = HashMap::new();
    let (mut here, mut call) = (false, false);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            here = object == program;
        } else if line.starts_with("calls=") {
            // The line after it has the costs of the function that was called.
            call = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            if std::mem::take(&mut call) || !here {
                continue;
            }
            let mut fields = rest.split(' ');
            let address = fields.next().and_then(|field| u64::from_str_radix(field, 16).ok());
            let count = fields.nth(1).and_then(|field| field.parse::<u64>().ok());
            if let (Some(address), Some(count)) = (address.filter(|address| locked.contains(address)), count) {
                *times.entry(address).or_default() += count;
            }
        }
    }
    times
}

/// For each address that addr2line was asked for the functions it was inlined from, innermost first, that say whose it is.
fn named(text: &str) -> HashMap<u64, String> {
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    let (mut address, mut place) = (0, false);
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            (address, place) = (number, false);
            names.insert(number, Vec::new());
            continue;
        }
        // A name, then where it is, in turns.
        if !place {
            if let Some(names) = names.get_mut(&address) {
                names.push(short(line));
            }
        }
        place = !place;
    }
    let whose = |name: &String| !["core::", "std::", "<core::", "<std::"].iter().any(|start| name.starts_with(start));
    names
        .into_iter()
        .map(|(address, frames)| {
            let chosen: Vec<_> = frames.iter().filter(|name| whose(name)).take(3).cloned().collect();
            (address, if chosen.is_empty() { frames.join(" < ") } else { chosen.join(" < ") })
        })
        .collect()
}

/// A function's name without what its generics are.
fn short(name: &str) -> String {
    let (mut out, mut depth) = (String::new(), 0_u32);
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // `<T as Trait>::f` and `<T>::f` begin with what is meant; generics come after a name.
            '<' if out.is_empty() => {}
            '<' => depth += 1,
            '>' if depth > 0 => depth -= 1,
            '>' => {}
            _ if depth > 0 => {}
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_instructions_are_found_in_a_listing() {
        let text = "  1000:\tlock xadd %rax,(%rdi)\n  1004:\tmov %rax,(%rdi)\n  1008:\txchg   %rax,0x8(%rdi)\n  \
                    100c:\txchg   %ax,%ax\n  1010:\tmfence\nnothing\n";
        assert_eq!(listed(text), HashSet::from([0x1000, 0x1008, 0x1010]));
    }

    #[test]
    fn a_profile_counts_own_instructions_of_the_program_alone() {
        let profile = "ob=/program\nfn=f\n0x1000 12 5\n0x1004 12 5\ncalls=2 0x2000 1\n0x1000 12 99\n0x1000 13 1\n\
                       ob=/library\nfn=g\n0x1000 1 7\n";
        assert_eq!(executed(profile, "/program", &HashSet::from([0x1000])), HashMap::from([(0x1000, 6)]));
    }

    #[test]
    fn places_are_named_by_who_they_were_inlined_from() {
        let text =
            "0x1000\ncore::sync::atomic::swap::<u8>\natomic.rs:1\n<gmp_executor::inject::Inject>::push\ninject.rs:2\n";
        let names = named(text);
        assert_eq!(names[&0x1000], "gmp_executor::inject::Inject::push");
        assert!(is_shared(&names[&0x1000]));
    }
}
