//! How many CPUs this process may use: those there are, its affinity, the quota of its cgroups. `runtime::builder` asks
//! when nobody says how many processors there are to be; `sched::procs` asks again while a runtime runs.
//!
//! 1. The limit of every cgroup from the process's own up to the root of its mount counts, and the tightest one holds.
//! 2. A quota is rounded up, gives at least [`QUOTA_MIN`] processors, and never more than there are CPUs.
//! 3. A file that is missing, or says what nobody understands, is no limit. Nothing here fails.
//! 4. Which files there are is found out once: a process that is moved to another cgroup keeps the limits it was built
//!    with.

use std::ffi::OsString;
use std::fs::read_to_string;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A quota gives at least so many processors (Go: `adjustCgroupGOMAXPROCS`): with one, a task that uses the quota up
/// would stop everything.
const QUOTA_MIN: u64 = 2;

/// Where the number comes from.
#[derive(Debug)]
pub(crate) struct Cpus {
    /// Cgroups whose limits count.
    groups: Vec<Group>,
    /// The CPUs, in tests that say so.
    given: Option<usize>,
}

/// A cgroup of one of the two versions.
#[derive(Debug, PartialEq, Eq)]
enum Group {
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us` are in this directory.
    V1(PathBuf),
    /// `cpu.max` is in this directory.
    V2(PathBuf),
}

impl Cpus {
    /// Of this process.
    pub(crate) fn of_this_process() -> Self {
        Cpus { groups: groups(Path::new("/")), given: None }
    }

    /// As files under `root` say, with so many CPUs.
    pub(crate) fn under(root: &Path, cpus: usize) -> Self {
        Cpus { groups: groups(root), given: Some(cpus) }
    }

    /// How many processors are right now worth having, at least 1.
    pub(crate) fn procs(&self) -> usize {
        let cpus = self.given.unwrap_or_else(affinity);
        procs(cpus, self.groups.iter().filter_map(Group::limit).min())
    }
}

/// How many CPUs this thread may run on. Quotas do not count.
fn affinity() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(cpus) if cpus.count() > 0 => cpus.count() as usize,
        // More CPUs than the set has bits.
        _ => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}

/// Invariant 2, for a quota in whole CPUs, rounded up.
fn procs(cpus: usize, quota: Option<u64>) -> usize {
    let cpus = cpus.max(1);
    quota.map_or(cpus, |quota| cpus.min(usize::try_from(quota.max(QUOTA_MIN)).unwrap_or(cpus)))
}

/// So many microseconds of CPU time in each period, in whole CPUs, rounded up.
fn whole_cpus(quota: u64, period: u64) -> Option<u64> {
    if quota == 0 || period == 0 { None } else { Some(quota.div_ceil(period)) }
}

/// What `cpu.max` says: `max 100000` is no limit, `150000 100000` is two CPUs.
fn cpu_max(text: &str) -> Option<u64> {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next()?.parse().ok()?;
    // The kernel's default, for a file that leaves it out.
    let period = words.next().map_or(Ok(100_000), str::parse).ok()?;
    whole_cpus(quota, period)
}

impl Group {
    /// In whole CPUs, rounded up.
    fn limit(&self) -> Option<u64> {
        match self {
            Group::V1(directory) => {
                // -1 is no limit.
                let number = |name: &str| read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
                whole_cpus(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
            }
            Group::V2(directory) => cpu_max(&read_to_string(directory.join("cpu.max")).ok()?),
        }
    }
}

/// The cgroups whose limits count, by the files under `root`.
fn groups(root: &Path) -> Vec<Group> {
    let under = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let read = |path: &str| read_to_string(under(Path::new(path))).unwrap_or_default();
    let (cgroup, mountinfo) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
    let mounts = mounts(&mountinfo);
    let of = |v2: bool| {
        let (own, mount) = (own_cgroup(&cgroup, v2)?, mounts.iter().find(|mount| mount.v2 == v2)?);
        Some(mount.directories(&own))
    };
    let v1 = of(false).into_iter().flatten().map(|directory| Group::V1(under(&directory)));
    let v2 = of(true).into_iter().flatten().map(|directory| Group::V2(under(&directory)));
    v1.chain(v2).collect()
}

/// The path of this process in the hierarchy that limits CPU time, from `/proc/self/cgroup`: lines of hierarchy,
/// controllers and path. Version 2 has hierarchy 0 and no controllers.
fn own_cgroup(text: &str, v2: bool) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found =
            if v2 { hierarchy == "0" && controllers.is_empty() } else { controllers.split(',').any(|c| c == "cpu") };
        found.then(|| PathBuf::from(path))
    })
}

/// Where a hierarchy that limits CPU time is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    v2: bool,
    /// The cgroup that is seen at `point`.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// The directories of `own` and of all its ancestors that the mount shows.
    fn directories(&self, own: &Path) -> Vec<PathBuf> {
        // In a namespace, or where a part of the hierarchy is mounted, the path may lie outside: the mount is then all
        // there is to see.
        let inside = own.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let inside = if inside.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { inside };
        inside.ancestors().map(|part| self.point.join(part)).collect()
    }
}

/// The mounts of `/proc/self/mountinfo` that matter. A line is: id, parent, device, root, mount point, options,
/// optional fields, `-`, type, source, options of the file system.
fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, _source, options) = (filesystem.next()?, filesystem.next()?, filesystem.next().unwrap_or_default());
        let v2 = match kind {
            "cgroup2" => true,
            "cgroup" if options.split(',').any(|option| option == "cpu") => false,
            _ => return None,
        };
        Some(Mount { v2, root: unescape(root), point: unescape(point) })
    };
    text.lines().filter_map(mount).collect()
}

/// The kernel writes blanks and backslashes of a path as `\040` and the like.
fn unescape(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                plain.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                plain.push(b'\\');
                plain.extend_from_slice(part.as_bytes());
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
pub(crate) mod tests;
