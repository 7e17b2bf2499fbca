//! What the kernel counts for this process, read when somebody asks for it, and how much memory
//! it may have.

use std::fs;
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use crate::engine::File;

/// Version 1 says "no limit" with a number that no machine has.
const UNLIMITED: u64 = 1 << 60;

/// Every figure that can be had, named as the metrics name it.
pub(super) fn figures() -> Vec<File> {
    let figure = |name: &str, value: String| File {
        name: name.to_owned(),
        bytes: value.into_bytes(),
        modified_ms: 0,
        prepared: None,
    };
    let mut figures = Vec::new();
    if let Some(open) = open_descriptors() {
        figures.push(figure("open_fds", open.to_string()));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        figures.push(figure("max_fds", most.to_string()));
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may contain anything: what follows it is numbers.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| -> Option<u64> {
        after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
    };
    let ticks = clock_ticks_per_second() as f64;
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        figures.push(figure("cpu_seconds", ((user + system) as f64 / ticks).to_string()));
    }
    if let (Some(since_boot), Some(boot_s)) = (field(22), boot_s()) {
        let began_s = boot_s + since_boot as f64 / ticks;
        figures.push(figure("start_time_seconds", began_s.to_string()));
    }
    if let Some(pages) = field(24) {
        let resident = pages * page_size() as u64;
        figures.push(figure("resident_memory_bytes", resident.to_string()));
    }
    figures
}

/// How many descriptors are open.
pub(super) fn open_descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?;
    // The directory that is being read is open as well.
    Some((open.count() as u64).saturating_sub(1))
}

fn boot_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

/// What this process may have.
pub(super) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least that any group grants which this process stands in, itself or by way of a group
/// inside: each of them kills. In a container only its own group is mounted, as the root, and the
/// path that `groups` tells may not be there at all.
fn limit_of(groups: &str, mount: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (hierarchy, file) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let nested = Path::new(path.trim_start_matches('/')).ancestors();
        let limits = nested.filter_map(|group| {
            let text = fs::read_to_string(hierarchy.join(group).join(file)).ok()?;
            text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
        });
        least = limits.chain(least).min();
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_nested_limits_counts() {
        let mount = std::env::temp_dir().join(format!("wspulse-groups-{}", std::process::id()));
        for (file, limit) in [
            ("memory.max", "max\n"),
            ("pods/memory.max", "67108864\n"),
            ("pods/one/memory.max", "134217728\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/old/memory.limit_in_bytes", "16777216\n"),
        ] {
            let file = mount.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, limit).unwrap();
        }
        for (groups, limit) in [
            ("0::/\n", None),
            ("0::/pods/one\n", Some(64 << 20)),
            // As a container sees it whose own group is the root of what is mounted.
            ("0::/pods/elsewhere/two\n", Some(64 << 20)),
            ("5:cpu,cpuacct:/\n4:memory:/old/inner\n0::/\n", Some(16 << 20)),
            ("4:memory:/\n0::/pods\n", Some(64 << 20)),
            ("", None),
            ("4:memory\n", None),
        ] {
            assert_eq!(limit_of(groups, &mount), limit, "{groups}");
        }
        fs::remove_dir_all(mount).unwrap();
    }
}
