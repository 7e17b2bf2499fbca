//! Memory limit and memory use: of the control group, or of this process where a flag sets the
//! limit, since a group may be shared with others.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::param::page_size;

/// Version 1 expresses "no limit" as a huge number; real limits are below this.
const UNLIMITED: u64 = 1 << 60;
/// `memory.stat` is long, and read only when it matters: from this percentage of the limit on.
const STATISTICS_PERCENT: u64 = 70;
const FILE_BYTES: usize = 16 * 1024;

/// A control group that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    limit: u64,
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Measures memory use. Its files stay open, since descriptors may run out.
#[derive(Debug)]
pub(crate) struct Gauge {
    files: Files,
}

#[derive(Debug)]
enum Files {
    Process {
        statm: File,
    },
    /// Of its control group.
    Group {
        limit: u64,
        usage: File,
        /// Version 1 counts socket buffers apart.
        sockets: Option<File>,
        statistics: Option<File>,
        /// The name in `memory.stat` of memory that the kernel can reclaim at any time.
        reclaimable: &'static str,
    },
}

impl Gauge {
    pub(crate) fn of_process() -> io::Result<Self> {
        Ok(Self { files: Files::Process { statm: File::open("/proc/self/statm")? } })
    }

    /// Measures the control group with the lowest limit; also returns that limit.
    pub(crate) fn of_group() -> Option<(u64, io::Result<Self>)> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = narrowest(&groups, Path::new("/sys/fs/cgroup"))?;
        Some((group.limit, Self::open(&group)))
    }

    fn open(group: &Group) -> io::Result<Self> {
        let open = |file: &str| File::open(group.folder.join(file));
        let (usage, sockets, reclaimable) = match group.version {
            Version::One => (
                open("memory.usage_in_bytes")?,
                open("memory.kmem.tcp.usage_in_bytes").ok(),
                "total_inactive_file",
            ),
            Version::Two => (open("memory.current")?, None, "inactive_file"),
        };
        let statistics = open("memory.stat").ok();
        let limit = group.limit;
        Ok(Self { files: Files::Group { limit, usage, sockets, statistics, reclaimable } })
    }

    /// Bytes in use; `None` if a file cannot be read.
    pub(super) fn used(&self) -> Option<u64> {
        match &self.files {
            Files::Process { statm } => read(statm, |text| {
                let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
                Some(pages * page_size() as u64)
            }),
            Files::Group { limit, usage, sockets, statistics, reclaimable } => {
                let number = |text: &str| text.trim().parse().ok();
                let sockets = sockets.as_ref().and_then(|file| read(file, number)).unwrap_or(0);
                let used: u64 = read(usage, number)? + sockets;
                if used < limit / 100 * STATISTICS_PERCENT {
                    return Some(used);
                }
                let statistics = statistics.as_ref();
                let reclaimable =
                    statistics.and_then(|file| read(file, |text| line(text, reclaimable)));
                Some(used.saturating_sub(reclaimable.unwrap_or(0)))
            }
        }
    }
}

/// Reads a kernel file from its beginning.
fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0; FILE_BYTES];
    let length = file.read_at(&mut buffer, 0).ok()?;
    parse(str::from_utf8(&buffer[..length]).ok()?)
}

/// The value of the line with this name.
fn line(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

/// The group with the lowest limit among the group of this process and its ancestors, since each
/// limit is enforced. In a container only its own group is mounted, as the root, and the path in
/// `groups` may not exist.
fn narrowest(groups: &str, mount: &Path) -> Option<Group> {
    let mut least: Option<Group> = None;
    for entry in groups.lines() {
        let mut fields = entry.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (hierarchy, file, version) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max", Version::Two)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes", Version::One)
        } else {
            continue;
        };
        let nested = Path::new(path.trim_start_matches('/')).ancestors();
        let limited = nested.filter_map(|group| {
            let folder = hierarchy.join(group);
            let text = fs::read_to_string(folder.join(file)).ok()?;
            let limit = text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)?;
            Some(Group { limit, folder, version })
        });
        least = limited.chain(least).min_by_key(|group| group.limit);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups_of(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let mount =
            std::env::temp_dir().join(format!("wspulse-groups-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = mount.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        mount
    }

    #[test]
    fn the_lowest_of_nested_limits_counts() {
        let mount = groups_of(
            "limits",
            &[
                ("memory.max", "max\n"),
                ("pods/memory.max", "67108864\n"),
                ("pods/one/memory.max", "134217728\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/old/memory.limit_in_bytes", "16777216\n"),
            ],
        );
        for (groups, found) in [
            ("0::/\n", None),
            ("0::/pods/one\n", Some((64 << 20, "pods", Version::Two))),
            // In a container whose own group is the root of the mount.
            ("0::/pods/elsewhere/two\n", Some((64 << 20, "pods", Version::Two))),
            (
                "5:cpu,cpuacct:/\n4:memory:/old/inner\n0::/\n",
                Some((16 << 20, "memory/old", Version::One)),
            ),
            ("4:memory:/\n0::/pods\n", Some((64 << 20, "pods", Version::Two))),
            ("", None),
            ("4:memory\n", None),
        ] {
            let found = found.map(|(limit, folder, version)| Group {
                limit,
                folder: mount.join(folder),
                version,
            });
            assert_eq!(narrowest(groups, &mount), found, "{groups}");
        }
        fs::remove_dir_all(mount).unwrap();
    }

    #[test]
    fn sockets_count_and_reclaimable_memory_does_not() {
        let mount = groups_of(
            "usage",
            &[
                ("two/memory.current", "900\n"),
                ("two/memory.stat", "anon 500\ninactive_file 200\nsock 100\n"),
                ("one/memory.usage_in_bytes", "700\n"),
                ("one/memory.kmem.tcp.usage_in_bytes", "100\n"),
                ("one/memory.stat", "inactive_file 50\ntotal_inactive_file 150\n"),
            ],
        );
        let used = |folder: &str, version, limit| {
            let group = Group { limit, folder: mount.join(folder), version };
            Gauge::open(&group).unwrap().used()
        };
        assert_eq!(used("two", Version::Two, 1000), Some(700));
        assert_eq!(used("one", Version::One, 1000), Some(650));
        // Far below the limit the statistics are not read.
        assert_eq!(used("two", Version::Two, 2000), Some(900));
        assert!(Gauge::of_process().unwrap().used().is_some_and(|used| used > 1 << 20));
        fs::remove_dir_all(mount).unwrap();
    }
}
