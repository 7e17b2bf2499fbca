//! Figures and limits of this process, from the kernel, and the host name.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::File;

/// All available figures, named as in the metrics.
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
    // The name in parentheses may contain anything; what follows is numbers.
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

pub(crate) fn open_descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?;
    // The directory being read is open as well.
    Some((open.count() as u64).saturating_sub(1))
}

/// CPU time of the first thread, and the time that it could have run and had no core; `None` if the
/// kernel does not count them.
pub(crate) fn core_use() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/schedstat").ok()?;
    let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next())
}

/// Raises the soft descriptor limit to the hard limit, since an idle connection costs little more
/// than its descriptor. Returns the limit.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.unwrap_or(1 << 20)
}

/// The host name, or `localhost` if the kernel has none.
#[must_use]
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

fn boot_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}
