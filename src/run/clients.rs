//! The commands that open connections: `healthcheck`, `load`, `connect`, `probe`. Each reads the
//! file of `--ca-file`, builds its engine and drives it until it is done. The engines, and the
//! protocols that they speak, are in the modules of the same names.

use core::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::seed;
use crate::connect::Connect;
use crate::engine::{Engine, Target};
use crate::healthcheck::{Healthcheck, Plan as Question};
use crate::load::{self, Load, NoReport, Pace, Plan, Report, Summary, Thresholds, Usage};
use crate::net::driver::Driver;
use crate::net::kernel::{Duties, Kernel};
use crate::net::process::raise_descriptor_limit;
use crate::net::{clock, files, process, signals};
use crate::options::{self, Form, Goal};
use crate::probe::Probe;

/// Interval of the progress line.
const PROGRESS_MS: u64 = 1_000;
/// Longest file of reports: thousands of them.
const REPORTS_BYTES: u64 = 256 << 20;

/// Why a client could not start.
#[derive(Debug)]
pub enum ToolError {
    /// The file of `--ca-file` cannot be read.
    Authorities(io::Error),
    /// More clients than descriptors.
    Descriptors {
        /// Clients of the plan.
        clients: usize,
        /// The limit of descriptors of this process.
        limit: u64,
        /// Descriptors that are open already.
        used: u64,
    },
    /// A file of `--merge` cannot be read.
    Reports(io::Error),
    /// A file of `--merge` is no report.
    NoReport(NoReport),
    /// The file of `--junit` cannot be written.
    Junit(io::Error),
    /// A system call that every client needs failed.
    Kernel(io::Error),
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities(error) => write!(f, "--ca-file: cannot read {error}"),
            Self::Descriptors { clients, limit, used } => write!(
                f,
                "--clients {clients}: the limit of {limit} descriptors leaves room for {}: raise \
                 it (ulimit -n {}, LimitNOFILE=, docker --ulimit nofile=) or take fewer clients",
                limit.saturating_sub(*used),
                *clients as u64 + used,
            ),
            Self::Reports(error) => write!(f, "--merge: cannot read {error}"),
            Self::Junit(error) => write!(f, "--junit: cannot write {error}"),
            Self::NoReport(error) => write!(f, "--merge: {error}"),
            Self::Kernel(error) => write!(f, "a system call failed: {error}"),
        }
    }
}

/// `wspulse healthcheck`: asks a server whether it is healthy; returns the exit code and one line
/// for the user.
///
/// # Errors
/// When a system call that every client needs fails.
pub fn healthcheck(options: options::Healthcheck) -> io::Result<(u8, String)> {
    let began_ns = clock::now().mono_ns;
    let options::Healthcheck { goal, host, path, url, timeout_ms } = options;
    let targets = match targets(goal) {
        Ok(targets) => targets,
        Err(error) => return Ok((1, format!("{url}: {error}"))),
    };
    let question = Question { targets, host, path, timeout_ms };
    let mut engine = Healthcheck::new(question, began_ns);
    let kernel = Kernel::new(Duties::default(), signals::pipes()?)?;
    let code = drive_borrowed(&mut engine, kernel)?;
    let verdict = engine.verdict();
    Ok((code, format!("{url}: {}", verdict.map_or(String::new(), ToString::to_string))))
}

/// Runs the clients of a plan until they are done; returns their measurements.
///
/// # Errors
/// When a system call fails, or the descriptor limit is too low for the clients.
pub fn load(plan: Plan) -> Result<Report, ToolError> {
    let limit = raise_descriptor_limit();
    let kernel = Kernel::new(Duties::default(), signals::stop_pipe()?)?;
    let kernel = match plan.pace {
        Pace::Closed { .. } => kernel,
        Pace::Open { .. } => kernel.wake_exactly()?,
    };
    let (clients, used) = (plan.clients, process::open_descriptors().unwrap_or(0));
    if clients as u64 > limit.saturating_sub(used) {
        return Err(ToolError::Descriptors { clients, limit, used });
    }
    let mut driver = Driver::new(Load::new(plan, seed()), kernel);
    let (mut began, mut usage, mut was_sending) = (None, None, false);
    loop {
        let ended = driver.turn()?.is_some();
        match (was_sending, driver.engine().is_sending()) {
            (false, true) => began = clocks(),
            (true, false) => usage = began.as_ref().and_then(used_since),
            (false, false) | (true, true) => {}
        }
        was_sending = driver.engine().is_sending();
        if ended {
            let mut report = driver.engine().report().clone();
            report.usage = usage;
            return Ok(report);
        }
    }
}

/// The clocks of this process.
fn clocks() -> Option<Usage> {
    let (cpu_ns, waiting_ns) = process::core_use()?;
    Some(Usage { cpu_ns, waiting_ns, wall_ns: clock::now().mono_ns })
}

/// How much of a core was used since then.
fn used_since(then: &Usage) -> Option<Usage> {
    let now = clocks()?;
    Some(Usage {
        cpu_ns: now.cpu_ns.saturating_sub(then.cpu_ns),
        waiting_ns: now.waiting_ns.saturating_sub(then.waiting_ns),
        wall_ns: now.wall_ns.saturating_sub(then.wall_ns),
    })
}

/// `wspulse load`: runs the plan; returns the exit code and the report.
///
/// # Errors
/// When the client cannot start.
pub fn measure(options: options::Load) -> Result<(u8, String), ToolError> {
    let options::Load { url, goal, mut plan, thresholds, form } = options;
    plan.targets = targets(goal)?;
    let watched = io::stderr().is_terminal();
    plan.progress_ms = watched.then_some(PROGRESS_MS);
    let report = load(plan.clone());
    if watched {
        // The report replaces the progress line; the terminal may have gone.
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
    Ok(verdict(Summary::new(&url, &plan, &report?), &thresholds, form))
}

/// The exit code and the report.
fn verdict(mut summary: Summary, thresholds: &Thresholds, form: Form) -> (u8, String) {
    let code = summary.judge(thresholds);
    let text = match form {
        Form::Page => summary.page(),
        Form::Json => summary.json(),
    };
    (code, text)
}

/// `wspulse load --merge`: reads the reports of several generators; returns the exit code and the
/// report of all of them.
///
/// # Errors
/// When a file cannot be read, or is no report.
pub fn merge(options: options::Merge) -> Result<(u8, String), ToolError> {
    let options::Merge { files, thresholds, form } = options;
    let mut reports = Vec::new();
    for name in &files {
        let read = files::read_whole(Path::new(name), REPORTS_BYTES);
        reports.push((name.as_str(), read.map_err(ToolError::Reports)?));
    }
    let reports = reports.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    let summary = load::merge(reports).map_err(ToolError::NoReport)?;
    Ok(verdict(summary, &thresholds, form))
}

/// `wspulse connect`: returns the exit code. Messages go through standard input and output.
///
/// # Errors
/// When the client cannot start.
pub fn connect(options: options::Connect) -> Result<u8, ToolError> {
    let options::Connect { goal, mut plan } = options;
    plan.targets = targets(goal)?;
    let both = io::stdin().is_terminal() && io::stdout().is_terminal();
    plan.prompt = both.then_some("> ");
    let kernel = Kernel::new(Duties::default(), signals::stop_pipe()?)?;
    Ok(drive_borrowed(&mut Connect::new(plan, seed(), clock::now()), kernel)?)
}

/// The outcome of `wspulse probe`.
#[derive(Debug)]
pub struct Probed {
    /// The exit code.
    pub code: u8,
    /// The report.
    pub report: String,
    /// Why the file of `--junit` lacks it.
    pub unwritten: Option<ToolError>,
}

/// `wspulse probe`.
///
/// # Errors
/// When the client cannot start, or the file of `--junit` cannot be created.
pub fn probe(options: options::Probe) -> Result<Probed, ToolError> {
    let options::Probe { goal, mut plan, form, junit, fail_on } = options;
    if let Some(target) = targets(goal)?.into_iter().next() {
        plan.target = target;
    }
    if let Some(path) = &junit {
        // Not only after more than a minute.
        files::write(path, b"").map_err(ToolError::Junit)?;
    }
    plan.live = io::stderr().is_terminal();
    let engine = Probe::new(plan, seed(), clock::now());
    let (_, engine) = drive(engine, SignalMode::Engine)?;
    let report = engine.report();
    let written = junit.map_or(Ok(()), |path| files::write(&path, report.junit().as_bytes()));
    let text = match form {
        Form::Page => report.page(),
        Form::Json => report.json(),
    };
    Ok(Probed {
        code: report.exit_code(fail_on),
        report: text,
        unwritten: written.err().map(ToolError::Junit),
    })
}

/// Whether the engine receives SIGTERM and SIGINT, or they keep their default action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalMode {
    /// The engine receives [`Signal::Stop`](crate::engine::Signal::Stop).
    Engine,
    /// They keep their default action, since the process does more than run this engine.
    Default,
}

/// Runs an engine that opens connections and accepts none, until it asks for an exit; returns the
/// exit code and the engine in its last state.
///
/// # Errors
/// When a system call that every client needs fails.
pub fn drive<E: Engine>(mut engine: E, mode: SignalMode) -> io::Result<(u8, E)> {
    raise_descriptor_limit();
    let signals = match mode {
        SignalMode::Engine => signals::stop_pipe()?,
        SignalMode::Default => Vec::new(),
    };
    let code = drive_borrowed(&mut engine, Kernel::new(Duties::default(), signals)?)?;
    Ok((code, engine))
}

/// The only instance of the driver for all engines but the server and `load`.
fn drive_borrowed(engine: &mut dyn Engine, kernel: Kernel) -> io::Result<u8> {
    Driver::new(engine, kernel).run()
}

/// The addresses that a client connects to. Reads the file of `--ca-file` if the goal has one.
fn targets(goal: Goal) -> Result<Vec<Target>, ToolError> {
    let file = goal.file().map(files::read_small).transpose().map_err(ToolError::Authorities)?;
    Ok(goal.targets(&file.unwrap_or_default()))
}
