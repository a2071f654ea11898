//! Quotas as numbers, as files, and as trees of cgroups.

use super::*;

/// A directory that goes with the test.
pub(crate) struct Tree(pub(crate) PathBuf);

impl Tree {
    pub(crate) fn new(name: &str) -> Self {
        let tree = Tree(std::env::temp_dir().join(format!("gmp-cpus-{}-{name}", std::process::id())));
        std::fs::create_dir_all(&tree.0).unwrap();
        tree
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// The quota of the root, of which this process is.
    pub(crate) fn quota(&self, text: &str) -> &Self {
        self.write("proc/self/cgroup", "0::/\n").write("proc/self/mountinfo", V2).write("sys/fs/cgroup/cpu.max", text)
    }

    fn procs(&self, cpus: usize) -> usize {
        Cpus::under(&self.0, cpus).procs()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "30 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct\n";

#[test]
fn r17_a_quota_is_rounded_up_and_at_least_two() {
    for (quota, expected) in [
        ("50000 100000", 2),
        ("150000 100000", 2),
        ("200000 100000", 2),
        ("200001 100000", 3),
        ("250000 100000", 3),
        ("1", 2),
        ("max 100000", 64),
        ("100000000 100000", 64),
        ("0 100000", 64),
        ("100000 0", 64),
        ("-1 100000", 64),
        ("nonsense", 64),
        ("", 64),
    ] {
        assert_eq!(procs(64, cpu_max(quota)), expected, "cpu.max is `{quota}`");
    }
}

#[test]
fn r17_a_quota_never_gives_more_than_the_cpus() {
    assert_eq!(procs(1, Some(1)), 1);
    assert_eq!(procs(2, Some(7)), 2);
    assert_eq!(procs(2, Some(u64::MAX)), 2);
    assert_eq!(procs(0, None), 1);
}

#[test]
fn r17_this_process_has_some() {
    let procs = Cpus::of_this_process().procs();
    assert!((1..=affinity()).contains(&procs), "{procs} of {}", affinity());
}

#[test]
fn r17_without_any_files_the_cpus_count() {
    assert_eq!(Tree::new("none").procs(8), 8);
}

#[test]
fn r17_the_tightest_limit_of_all_ancestors_holds() {
    let tree = Tree::new("v2");
    tree.write("proc/self/cgroup", "0::/pod/container/leaf\n").write("proc/self/mountinfo", V2);
    assert_eq!(tree.procs(8), 8);
    tree.write("sys/fs/cgroup/pod/container/leaf/cpu.max", "max 100000\n");
    tree.write("sys/fs/cgroup/pod/container/cpu.max", "600000 100000\n");
    assert_eq!(tree.procs(8), 6);
    tree.write("sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
    assert_eq!(tree.procs(8), 3);
    tree.write("sys/fs/cgroup/pod/container/leaf/cpu.max", "350000 100000\n");
    assert_eq!(tree.procs(8), 3);
    tree.write("sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_eq!(tree.procs(8), 2);
    assert_eq!(tree.procs(1), 1);
}

#[test]
fn r17_version_1_has_two_files() {
    let tree = Tree::new("v1");
    let files = "5:memory:/other\n4:cpuset:/\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n";
    tree.write("proc/self/cgroup", files).write("proc/self/mountinfo", V1);
    let cpu = "sys/fs/cgroup/cpu,cpuacct";
    let limit = |path: &str, quota: &str| {
        tree.write(&format!("{cpu}{path}/cpu.cfs_quota_us"), quota);
        tree.write(&format!("{cpu}{path}/cpu.cfs_period_us"), "50000\n");
    };
    limit("/docker/abc", "-1\n");
    assert_eq!(tree.procs(8), 8);
    limit("/docker/abc", "175000\n");
    assert_eq!(tree.procs(8), 4);
    limit("/docker", "125000\n");
    assert_eq!(tree.procs(8), 3);
    // A file alone says nothing.
    std::fs::remove_file(tree.0.join(cpu).join("docker/cpu.cfs_period_us")).unwrap();
    assert_eq!(tree.procs(8), 4);
}

#[test]
fn r17_both_versions_beside_each_other_count() {
    let tree = Tree::new("hybrid");
    tree.write("proc/self/cgroup", "1:cpu:/a\n0::/b\n").write("proc/self/mountinfo", &format!("{V1}{V2}"));
    tree.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "500000");
    tree.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000");
    assert_eq!(tree.procs(8), 5);
    tree.write("sys/fs/cgroup/b/cpu.max", "400000 100000");
    assert_eq!(tree.procs(8), 4);
}

#[test]
fn r17_a_mount_may_show_a_part_of_the_hierarchy() {
    // Docker without a cgroup namespace: the container's group is mounted, and the path is the host's.
    let tree = Tree::new("part");
    let mount = r"31 23 0:28 /docker/abc /sys/fs/cg\040roup ro - cgroup2 cgroup2 rw";
    tree.write("proc/self/cgroup", "0::/docker/abc/inner\n").write("proc/self/mountinfo", mount);
    tree.write("sys/fs/cg roup/cpu.max", "500000 100000");
    assert_eq!(tree.procs(8), 5);
    tree.write("sys/fs/cg roup/inner/cpu.max", "300000 100000");
    assert_eq!(tree.procs(8), 3);
}

#[test]
fn r17_a_path_outside_of_the_mount_is_the_mount() {
    for path in ["/", "/elsewhere", "/../sibling"] {
        let tree = Tree::new(&format!("outside-{}", path.len()));
        let mount = "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        tree.write("proc/self/cgroup", &format!("0::{path}\n")).write("proc/self/mountinfo", mount);
        tree.write("sys/fs/cgroup/cpu.max", "300000 100000");
        assert_eq!(tree.procs(8), 3, "{path}");
    }
    // A namespace shows its own group as the root.
    let mount = Mount { v2: true, root: "/".into(), point: "/sys/fs/cgroup".into() };
    assert_eq!(mount.directories(Path::new("/../sibling")), [Path::new("/sys/fs/cgroup")]);
}

#[test]
fn r17_nonsense_is_no_limit() {
    let tree = Tree::new("nonsense");
    tree.write("proc/self/cgroup", "\n::\n0\n0:\nx:cpu\n0::/a\n");
    tree.write("proc/self/mountinfo", "\n - \n1 2 3 - cgroup2\n - cgroup2 x y\n1 2 3 / /sys/fs/cgroup - cgroup2 x\n");
    tree.write("sys/fs/cgroup/a/cpu.max", "\u{0}\u{1} ;");
    assert_eq!(tree.procs(8), 8);
}

#[test]
fn r17_escapes_of_the_kernel_are_undone() {
    assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
    assert_eq!(unescape(r"/a\9\04"), Path::new(r"/a\9\04"));
    assert_eq!(unescape("/ä\\040ö"), Path::new("/ä ö"));
}
