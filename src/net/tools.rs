//! The commands that are clients: files are read, descriptors are counted, then an engine
//! is driven until it is done.

use core::fmt;
use std::io::{self, IsTerminal};

use super::driver::Driver;
use super::kernel::{Duties, Kernel};
use super::{clock, files, process, raise_descriptor_limit, seed, signals};
use crate::connect::Connect;
use crate::engine::{Engine, Target};
use crate::load::{self, Load, Pace, Plan, Report};
use crate::options::{self, Form, Goal};

/// How often the line of progress is shown.
const PROGRESS_MS: u64 = 1_000;

/// Why a client could not begin.
#[derive(Debug)]
pub enum ToolError {
    /// The file of `--ca-file` cannot be read.
    Authorities(io::Error),
    /// More clients than descriptors.
    Descriptors {
        /// Clients that were asked for.
        clients: usize,
        /// Descriptors that this process may have.
        limit: u64,
        /// Those that it has.
        used: u64,
    },
    /// The kernel refuses what every program needs.
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
            Self::Kernel(error) => write!(f, "the kernel does not let this run: {error}"),
        }
    }
}

/// Runs clients until they are done; says what came of it.
///
/// # Errors
/// When the kernel does not let it run, or has too few descriptors.
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
    driver.run()?;
    Ok(driver.engine().report().clone())
}

/// `wspulse load`: the exit code, and the report.
///
/// # Errors
/// When it cannot begin.
pub fn measure(told: options::Load) -> Result<(u8, String), ToolError> {
    let options::Load { url, goal, mut plan, thresholds, form } = told;
    plan.targets = targets(goal)?;
    let watched = io::stderr().is_terminal();
    plan.progress_ms = watched.then_some(PROGRESS_MS);
    let report = load(plan.clone());
    if watched {
        // What follows stands where the line of progress was.
        eprint!("\r\x1b[K");
    }
    let report = report?;
    let missed = report.missed(&plan, &thresholds);
    let text = match form {
        Form::Page => load::page(&url, &plan, &report, &missed),
        Form::Json => load::json(&url, &plan, &report, &missed),
    };
    Ok((report.exit_code(&missed), text))
}

/// `wspulse connect`: the exit code. What is said goes through standard input and output.
///
/// # Errors
/// When it cannot begin.
pub fn connect(told: options::Connect) -> Result<u8, ToolError> {
    let options::Connect { goal, mut plan } = told;
    plan.targets = targets(goal)?;
    let both = io::stdin().is_terminal() && io::stdout().is_terminal();
    plan.prompt = both.then_some("> ");
    let kernel = Kernel::new(Duties::default(), signals::stop_pipe()?)?;
    let mut driver = Driver::new(Connect::new(plan, seed(), clock::now()), kernel);
    Ok(driver.run()?)
}

/// Whether signals are for the engine, or do what they always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ears {
    /// The engine hears them.
    Open,
    /// The engine is not the only thing that this process does.
    Shut,
}

/// Runs an engine that opens connections and takes none, until it wants the process to end;
/// returns the exit code, and the engine as it was then.
///
/// # Errors
/// When the kernel does not let it run.
pub fn drive<E: Engine>(engine: E, ears: Ears) -> io::Result<(u8, E)> {
    raise_descriptor_limit();
    let signals = match ears {
        Ears::Open => signals::stop_pipe()?,
        Ears::Shut => Vec::new(),
    };
    let mut driver = Driver::new(engine, Kernel::new(Duties::default(), signals)?);
    let code = driver.run()?;
    Ok((code, driver.into_engine()))
}

/// Where a client connects to, once the file is read that it may need for that.
pub(super) fn targets(goal: Goal) -> Result<Vec<Target>, ToolError> {
    let file = goal.file().map(files::read_small).transpose().map_err(ToolError::Authorities)?;
    Ok(goal.targets(&file.unwrap_or_default()))
}
