//! How many locked instructions an operation of gmp's executes, and how many of them on lines that all processors
//! share: callgrind counts each instruction, `objdump` says which of them are locked, and `addr2line` whose they are
//! (`--locked`; x86-64).
//!
//! 1. A locked instruction is one with the prefix `lock`, an exchange with memory, or a full fence.
//! 2. It is on a shared line if a function of the global queue, of the list of idle processors, of the netpoller, or of
//!    a theft is among those it was inlined from. The others are on lines of a task, a processor, or a shard, or are
//!    fences.
//! 3. The bench's own counting of allocations is left out.
//! 4. As with the other counts, those of `n` operations and of `2 n` are taken in processes of their own, of several
//!    of which the one with the fewest instructions counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::gates::{self, Gate, Profile};

/// Modules, and functions, that are about what all processors share.
const SHARED: [&str; 4] = ["::inject::", "::idle::", "::netpoll::", "::steal"];

/// Frames that are named, of those that an instruction was inlined from.
const FRAMES: usize = 3;

/// Places of which so many are named.
const NAMED: usize = 12;
/// Those that fewer operations come to are not.
const RARE: f64 = 0.005;

/// Whose an instruction is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    /// Whether others meet there.
    shared: bool,
    /// The functions it was inlined from, innermost first.
    name: String,
}

/// Whose instructions are executed, and how often in an operation.
type Places = Vec<(Owner, f64)>;

/// Prints for each gated operation what is executed.
///
/// # Errors
///
/// valgrind, objdump or addr2line is not there or fails.
pub fn print() -> io::Result<()> {
    let program = Program::this()?;
    for gate in gates::all().into_iter().filter(|gate| gate.locked) {
        let [once, twice] = gates::profiles(&gate)?;
        let places = program.places(&gate, &once, &twice)?;
        let [all, shared] = sums(&places);
        println!("{:<18} {all:>7.2} an operation, {shared:>7.2} of them on shared lines", gate.name);
        for (i, (Owner { shared, name }, times)) in places.iter().filter(|(_, times)| *times >= RARE).enumerate() {
            if i < NAMED || *shared {
                println!("    {times:>7.2}  {}{name}", if *shared { "SHARED " } else { "" });
            }
        }
    }
    Ok(())
}

/// All of an operation, and those on shared lines.
fn sums(places: &Places) -> [f64; 2] {
    let sum = |which: fn(&Owner) -> bool| places.iter().filter(|(owner, _)| which(owner)).map(|(_, times)| times).sum();
    [sum(|_| true), sum(|owner| owner.shared)]
}

/// This program, and where its locked instructions are.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    locked: HashSet<u64>,
}

impl Program {
    /// # Errors
    ///
    /// objdump is not there or fails.
    pub fn this() -> io::Result<Program> {
        let path = std::env::current_exe()?;
        let listing = gates::output(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&path))?;
        Ok(Program { locked: listed(&String::from_utf8_lossy(&listing)), path })
    }

    /// The locked instructions of an operation: all of them, and those on shared lines.
    ///
    /// # Errors
    ///
    /// addr2line is not there or fails.
    pub fn locked(&self, gate: &Gate, once: &Profile, twice: &Profile) -> io::Result<[f64; 2]> {
        Ok(sums(&self.places(gate, once, twice)?))
    }

    fn places(&self, gate: &Gate, once: &Profile, twice: &Profile) -> io::Result<Places> {
        let path = self.path.to_string_lossy();
        let [once, twice] = [once, twice].map(|profile| executed(&profile.text, &path, &self.locked));
        let mut addresses: Vec<u64> = twice.keys().copied().collect();
        addresses.sort_unstable();
        let arguments = addresses.iter().map(|address| format!("{address:#x}"));
        let said = gates::output(Command::new("addr2line").arg("-aifCe").arg(&self.path).args(arguments))?;
        let names = named(&String::from_utf8_lossy(&said));
        let mut sums: BTreeMap<Owner, f64> = BTreeMap::new();
        for address in addresses {
            let times = (twice[&address] as f64 - once.get(&address).copied().unwrap_or(0) as f64) / gate.ops() as f64;
            *sums.entry(names.get(&address).cloned().unwrap_or_default()).or_default() += times;
        }
        let own = |owner: &Owner| owner.name.contains("gmp_bench::alloc");
        let mut places: Places = sums.into_iter().filter(|(owner, _)| !own(owner)).collect();
        places.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Ok(places)
    }
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

/// For each address that addr2line was asked for, whose it is.
fn named(text: &str) -> HashMap<u64, Owner> {
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
            let chosen: Vec<_> = frames.iter().filter(|name| whose(name)).take(FRAMES).cloned().collect();
            let shared = frames.iter().any(|name| SHARED.iter().any(|shared| name.contains(shared)));
            let name = if chosen.is_empty() { frames.join(" < ") } else { chosen.join(" < ") };
            (address, Owner { shared, name })
        })
        .collect()
}

/// A function's name without what its generics are.
fn short(name: &str) -> String {
    let (mut out, mut depth) = (String::new(), 0_u32);
    for character in name.chars() {
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
    fn sums_are_of_all_places_and_of_the_shared() {
        let place = |shared, times| (Owner { shared, name: "f".into() }, times);
        assert_eq!(sums(&vec![place(false, 2.0), place(true, 0.5), place(false, 1.0)]), [3.5, 0.5]);
    }

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
        assert_eq!(names[&0x1000], Owner { shared: true, name: "gmp_executor::inject::Inject::push".into() });
    }
}
